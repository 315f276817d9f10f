"""`ingle vm start|stop|restart|kill|delete|prune`: changes to VMs that exist, many at a time."""

import shlex
from typing import Annotated, cast

import typer

from ingle.cli import completion
from ingle.cli.client import Call, connect, duration
from ingle.cli.commands.vm.change import change_vms, to_see
from ingle.cli.completion import VMM_SIGNALS
from ingle.cli.lazy import examples, new_app
from ingle.cli.many import change_known
from ingle.cli.options import AsJson, StopTimeout, VmReferences, as_option
from ingle.cli.output import ask_first
from ingle.v1 import vm_pb2
from ingle.v1.signal_pb2 import Signal

app = new_app()

_ASKED = "a guest that was asked to power off is stopped all the same;"
_GOES_ON = "what was begun is done all the same;"

_IDLE = {vm_pb2.VM_STATE_STOPPED, vm_pb2.VM_STATE_ERROR}


def _parse_signal(text: str) -> int:
    name = text.upper().removeprefix("SIG")
    if name in VMM_SIGNALS:
        return VMM_SIGNALS[name]
    if text.isdigit() and int(text) in VMM_SIGNALS.values():
        return int(text)
    known = ", ".join(f"{name} ({number})" for name, number in VMM_SIGNALS.items())
    raise ValueError(f"{text!r} is not one of {known}")


@app.command(epilog=examples("ingle vm start web", "ingle vm start web db cache"))
def start(vms: VmReferences, json: AsJson = False) -> None:
    """Start stopped VMs; ready when their agents answer.

    Those that are paused or hibernated go on where they were."""
    with connect() as client:
        change_vms(client, vms, lambda vm: vm_pb2.StartVmRequest(vm=vm), vm_pb2.StartVmResponse, "Starting", json=json)


@app.command(epilog=examples("ingle vm stop web", "ingle vm stop --timeout 60s web db"))
def stop(vms: VmReferences, timeout: StopTimeout = None, json: AsJson = False) -> None:
    """Sync and power off; killed after the timeout."""

    def request(vm: str) -> vm_pb2.StopVmRequest:
        return vm_pb2.StopVmRequest(vm=vm, timeout=duration(timeout))

    with connect() as client:
        change_vms(
            client, vms, request, vm_pb2.StopVmResponse, "Stopping", json=json, if_interrupted=f"{_ASKED} {to_see(vms)}"
        )


@app.command(epilog=examples("ingle vm restart web", "ingle vm restart --timeout 5s web db"))
def restart(vms: VmReferences, timeout: StopTimeout = None, json: AsJson = False) -> None:
    """Stop and start again, with a new boot id."""

    def request(vm: str) -> vm_pb2.RestartVmRequest:
        return vm_pb2.RestartVmRequest(vm=vm, timeout=duration(timeout))

    with connect() as client:
        change_vms(
            client,
            vms,
            request,
            vm_pb2.RestartVmResponse,
            "Restarting",
            json=json,
            if_interrupted=f"{_ASKED} to start: ingle vm start {shlex.join(vms)}",
        )


@app.command(epilog=examples("ingle vm kill web", "ingle vm kill --signal TERM web db"))
def kill(
    vms: VmReferences,
    signal: Annotated[
        int,
        typer.Option(
            "--signal",
            "-s",
            parser=as_option(_parse_signal),
            metavar="SIGNAL",
            help="HUP, INT, KILL or TERM; KILL unless given.",
            show_default=False,
            autocompletion=completion.signal_names,
        ),
    ] = VMM_SIGNALS["KILL"],
    json: AsJson = False,
) -> None:
    """Signal the VMM without asking the guest.

    What the guest has not written to its disk is lost."""

    def request(vm: str) -> vm_pb2.KillVmRequest:
        return vm_pb2.KillVmRequest(vm=vm, signal=cast("Signal.ValueType", signal))

    with connect() as client:
        change_vms(
            client,
            vms,
            request,
            vm_pb2.KillVmResponse,
            "Killing",
            json=json,
            if_interrupted=f"{_GOES_ON} {to_see(vms)}",
        )


@app.command(epilog=examples("ingle vm delete web", "ingle vm rm -f web db", "ingle vm rm -f $(ingle vm list -q)"))
def delete(
    vms: VmReferences,
    force: Annotated[bool, typer.Option("--force", "-f", help="Also when it runs.")] = False,
    json: AsJson = False,
) -> None:
    """Delete VMs and their disks.

    Alias: rm."""

    def request(vm: str) -> vm_pb2.DeleteVmRequest:
        return vm_pb2.DeleteVmRequest(vm=vm, force=force)

    with connect() as client:
        change_vms(
            client,
            vms,
            request,
            vm_pb2.DeleteVmResponse,
            "Deleting",
            json=json,
            if_interrupted=f"{_GOES_ON} to see: ingle vm list",
        )


@app.command(epilog=examples("ingle vm prune", "ingle vm prune -f"))
def prune(
    force: Annotated[bool, typer.Option("--force", "-f", help="Don't ask.")] = False, json: AsJson = False
) -> None:
    """Delete all VMs that are stopped or in error.

    Those that run are spared."""
    with connect() as client:
        vms = client.all(vm_pb2.ListVmsRequest(), vm_pb2.ListVmsResponse).vms
        idle = {vm.id: vm.name for vm in vms if vm.state in _IDLE}
        if idle and not force:
            ask_first(f"Delete {', '.join(idle.values())}?", "ingle vm prune --force")

        def delete(vm_id: str) -> Call[vm_pb2.DeleteVmResponse]:
            return client.begin(vm_pb2.DeleteVmRequest(vm=vm_id), vm_pb2.DeleteVmResponse)

        change_known(idle, delete, "Deleting", json=json)

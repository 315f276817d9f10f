"""`ingle vm pause|resume|hibernate|wake`: VMs that stand still until somebody uses them."""

from ingle.cli.client import connect
from ingle.cli.commands.vm.change import change_vms
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson, VmReferences
from ingle.v1 import vm_pb2

app = new_app()


@app.command(
    epilog=examples("ingle vm pause web", "ingle vm pause web db && ingle vm exec web -- date   # use resumes")
)
def pause(vms: VmReferences, json: AsJson = False) -> None:
    """Have VMs stand still, in memory, until somebody uses them.

    Their guests take no processor time. A command, a terminal, a file or a forwarded connection resumes one; so do
    resume and start."""
    with connect() as client:
        change_vms(client, vms, lambda vm: vm_pb2.PauseVmRequest(vm=vm), vm_pb2.PauseVmResponse, "Pausing", json=json)


@app.command(epilog=examples("ingle vm resume web", "ingle vm resume web db"))
def resume(vms: VmReferences, json: AsJson = False) -> None:
    """Let paused VMs go on.

    Their clocks are set; programs find that time has passed."""
    with connect() as client:
        change_vms(
            client, vms, lambda vm: vm_pb2.ResumeVmRequest(vm=vm), vm_pb2.ResumeVmResponse, "Resuming", json=json
        )


@app.command(
    epilog=examples("ingle vm hibernate web", "ingle vm hibernate web db && ingle vm exec web -- date   # use wakes")
)
def hibernate(vms: VmReferences, json: AsJson = False) -> None:
    """Write VMs' memory to disk, until somebody uses them.

    They take neither memory nor processor time then. A command, a terminal, a file or a forwarded connection wakes one;
    so do wake and start. Stop and kill throw away what was saved."""
    with connect() as client:
        change_vms(
            client,
            vms,
            lambda vm: vm_pb2.HibernateVmRequest(vm=vm),
            vm_pb2.HibernateVmResponse,
            "Hibernating",
            json=json,
        )


@app.command(epilog=examples("ingle vm wake web", "ingle vm wake web db"))
def wake(vms: VmReferences, json: AsJson = False) -> None:
    """Let hibernated or paused VMs go on where they were.

    Their clocks are set; programs find that time has passed."""
    with connect() as client:
        change_vms(client, vms, lambda vm: vm_pb2.WakeVmRequest(vm=vm), vm_pb2.WakeVmResponse, "Waking", json=json)

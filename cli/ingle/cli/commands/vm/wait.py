"""`ingle vm wait`: until VMs are what a script needs them to be."""

import time
from datetime import timedelta
from typing import Annotated, NoReturn

import typer

from ingle.cli.client import Client, connect, duration
from ingle.cli.errors import EXIT_FAILED, EXIT_TIMED_OUT, CliError, Failure
from ingle.cli.jsonable import enum_name
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson, Span, VmReferences, as_option
from ingle.cli.output import print_json_line, say
from ingle.cli.stages import Stages
from ingle.v1 import healthcheck_pb2, vm_pb2

app = new_app()

_HEALTHY, _GONE = "healthy", "gone"
_HEALTH = healthcheck_pb2.HealthStatus.DESCRIPTOR
_STATES = vm_pb2.VmState.DESCRIPTOR
_STATE_NAMES = [enum_name(_STATES, number) for number in vm_pb2.VmState.values() if number]
_WISHES = [*_STATE_NAMES, _HEALTHY, _GONE]

_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0
_PATIENCE = timedelta(seconds=2)


def _parse_wish(text: str) -> str:
    if text not in _WISHES:
        raise ValueError(f"{text!r} is none of {', '.join(_WISHES)}")
    return text


@app.command(
    epilog=examples(
        "ingle vm wait web --for healthy && ingle vm exec web -- ./check",
        "ingle vm wait job --for stopped --timeout 10m",
        "ingle vm wait web db --for gone",
    )
)
def wait(
    vms: VmReferences,
    wish: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="WHAT",
            parser=as_option(_parse_wish),
            help=f"A state ({', '.join(_STATE_NAMES)}), healthy (its healthcheck says so, or, "
            "without one, its agent answers) or gone (deleted).",
            autocompletion=lambda incomplete: [name for name in _WISHES if name.startswith(incomplete)],
        ),
    ],
    timeout: Annotated[
        timedelta | None,
        typer.Option("--timeout", "-t", metavar="DURATION", parser=Span, help="Give up after e.g. 30s."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Wait until all of the VMs are in a state, healthy or gone.

    Prints each name when it is so. Exit code 0 when all are; 1 when one never will be by itself: it is gone, or its VMM
    died while it was to be running or healthy; 124 after the timeout. A VM that is not there is gone."""
    deadline = None if timeout is None else time.monotonic() + timeout.total_seconds()
    failures: list[Failure] = []
    with connect() as client, Stages(lines=False) as stages:
        waiting = _Waiting(client, wish, failures)
        pending = {reference: waiting.known(reference) for reference in dict.fromkeys(vms)}
        pause = _SHORTEST_PAUSE_SECONDS
        while True:
            stages.under_way(f"Waiting for {', '.join(pending)} to be {wish}")
            for reference, vm_id in list(pending.items()):
                if waiting.is_over(reference, vm_id):
                    del pending[reference]
                    pause = _SHORTEST_PAUSE_SECONDS
                    if not any(failure.subject == reference for failure in failures):
                        stages.end_live()
                        _tell(reference, wish, json=json)
            if not pending:
                break
            if deadline is not None and time.monotonic() + pause > deadline:
                time.sleep(max(0.0, deadline - time.monotonic()))
                _give_up(waiting, pending, failures)
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
    if failures:
        raise CliError(*failures, exit_code=EXIT_FAILED)


class _Waiting:
    """Looks at VMs, and notes why one can't become what is wished."""

    def __init__(self, client: Client, wish: str, failures: list[Failure]) -> None:
        self._client = client
        self._wish = wish
        self._failures = failures
        self.last_seen: dict[str, str] = {}

    def known(self, reference: str) -> str:
        """Its id, which is its own for good; empty when there is none."""
        vm = self._get(reference)
        return "" if vm is None else vm.id

    def is_over(self, reference: str, vm_id: str) -> bool:
        """Whether it is as wished, or never will be."""
        vm = self._get(vm_id) if vm_id else None
        if vm is None:
            if self._wish != _GONE:
                self._never(reference, "VM_NOT_FOUND", f"there is no such VM, and it won't be {self._wish}")
            return True
        state = enum_name(_STATES, vm.state)
        self.last_seen[reference] = state
        if state == self._wish:
            return True
        if self._wish in {_HEALTHY, "running"} and vm.state == vm_pb2.VM_STATE_ERROR:
            self._never(reference, "WRONG_STATE", f"it is in error: {vm.error}", f"ingle vm start {vm.name}")
            return True
        if self._wish != _HEALTHY or vm.state != vm_pb2.VM_STATE_RUNNING:
            return False
        if vm.HasField("health"):
            status = vm.health.status
            self.last_seen[reference] += f", {enum_name(_HEALTH, status)}: {vm.health.output}".rstrip(": ")
            return status == healthcheck_pb2.HEALTH_STATUS_HEALTHY
        return self._answers(reference, vm_id)

    def _answers(self, reference: str, vm_id: str) -> bool:
        request = vm_pb2.GetVmHealthRequest(vm=vm_id, patience=duration(_PATIENCE))
        try:
            health = self._client.call(request, vm_pb2.GetVmHealthResponse)
        except CliError as error:
            if error.failures[0].reason == "VM_NOT_FOUND":
                return False  # the next look tells
            raise
        if health.problem:
            self.last_seen[reference] += f", {health.problem}"
        return health.agent_answers

    def _get(self, reference: str) -> vm_pb2.Vm | None:
        try:
            return self._client.call(vm_pb2.GetVmRequest(vm=reference), vm_pb2.GetVmResponse).vm
        except CliError as error:
            if error.failures[0].reason == "VM_NOT_FOUND":
                return None
            raise

    def _never(self, reference: str, reason: str, why: str, remedy: str = "ingle vm list") -> None:
        self._failures.append(Failure(reason, why, remedy, subject=reference))


def _give_up(waiting: _Waiting, pending: dict[str, str], failures: list[Failure]) -> NoReturn:
    late = [
        Failure("TIMED_OUT", f"it is {waiting.last_seen[reference]}", "give --timeout more", subject=reference)
        for reference in pending
    ]
    raise CliError(*failures, *late, exit_code=EXIT_TIMED_OUT)


def _tell(reference: str, wish: str, *, json: bool) -> None:
    if json:
        print_json_line({"reference": reference, "is": wish})
    else:
        say(reference)

"""A server that is killed behind any transaction of falling asleep or waking leaves a VM that a verb leads on from."""

from collections.abc import Iterator

import grpc
import pytest

from contract.doomed import SPEC, DoomedServer, all_is_in_order, doomed_server, memory, state
from contract.test_sleep import HIBERNATED, PAUSED, RUNNING, Verb, hibernate, pause, resume, wake
from harness import Server
from ingle.v1 import vm_pb2

MOST_TRANSACTIONS = 40


@pytest.fixture(scope="module")
def doomed() -> Iterator[DoomedServer]:
    with doomed_server() as server:
        yield server


def nothing(server: Server, vm: vm_pb2.Vm) -> None:
    """What is done before falling asleep."""


@pytest.mark.parametrize(
    ("before", "verb", "states"),
    [
        (nothing, pause, {RUNNING, PAUSED}),
        (pause, resume, {PAUSED, RUNNING}),
        (nothing, hibernate, {RUNNING, PAUSED, HIBERNATED}),
        (pause, hibernate, {PAUSED, HIBERNATED}),
        (hibernate, wake, {HIBERNATED, PAUSED, RUNNING}),
    ],
)
def test_killed_behind_any_transaction_a_verb_leads_on(
    doomed: DoomedServer, before: Verb, verb: Verb, states: set[vm_pb2.VmState.ValueType]
) -> None:
    vm = doomed.vms.CreateVm(vm_pb2.CreateVmRequest(spec=SPEC)).vm
    kill_at = doomed.kill_at
    seen = set()
    for number in range(MOST_TRANSACTIONS):
        before(doomed, vm)
        kill_at.write_text(str(number))
        try:
            verb(doomed, vm)
        except grpc.RpcError:
            assert doomed.process is not None
            doomed.process.wait(30)
        kill_at.unlink()
        if doomed.process is None or doomed.process.poll() is None:
            break
        doomed.start()
        seen.add(state(doomed, vm))
        all_is_in_order(doomed)
        awake = doomed.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id)).vm
        assert awake.state == RUNNING
        assert doomed.run(vm.id, "true")[0] == 0
        assert not memory(doomed, vm).exists()
    else:
        pytest.fail(f"more than {MOST_TRANSACTIONS} transactions")
    assert seen == states
    doomed.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))

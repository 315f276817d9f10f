"""A guest that stands still and goes on, again and again."""

import time
from collections.abc import Iterator

import pytest

from harness import Client
from ingle.v1 import vm_pb2

from .guests import COMPLAINTS, clock_ahead, create, shell

_CLOCK_SECONDS = 0.05
_PAUSES = 100
_CYCLES = 3

_BEGIN = """echo in memory >/run/marker; echo on disk >/root/marker; mkdir /run/big
head -c 20000000 /dev/urandom >/run/big/data; md5sum /run/big/data >/root/sum
setsid sh -c 'n=0; while :; do n=$((n+1)); echo $n >/run/new; mv /run/new /run/count; sleep 0.05; done' \\
    >/dev/null 2>&1 </dev/null &
until test -e /run/count; do sleep 0.05; done"""
_LOOK = f"""cat /run/marker /root/marker; md5sum -c /root/sum >/dev/null && echo whole
before=$(cat /run/count); until test $(cat /run/count) -gt $before; do sleep 0.05; done; echo counts
{COMPLAINTS}
test $(cat /proc/sys/kernel/random/boot_id) = $1 && echo same boot"""
_LOOKS = "in memory\non disk\nwhole\ncounts\n0\nsame boot\n"


@pytest.fixture
def vm(server: Client, engine: str) -> Iterator[vm_pb2.Vm]:
    """One with something in memory, something on disk, and something that goes on."""
    vm = create(server, engine, "cycles")
    shell(server, vm, _BEGIN)
    yield vm
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def goes_on(server: Client, vm: vm_pb2.Vm) -> None:
    """Assert that it is where it was, and knows what time it is."""
    least, most = clock_ahead(server, vm)
    assert least <= _CLOCK_SECONDS
    assert most >= -_CLOCK_SECONDS
    assert shell(server, vm, _LOOK, vm.boot_id) == _LOOKS


def test_a_guest_that_pauses_again_and_again_goes_on(server: Client, vm: vm_pb2.Vm) -> None:
    for _ in range(_PAUSES):
        paused = server.vms.PauseVm(vm_pb2.PauseVmRequest(vm=vm.id)).vm
        assert paused.state == vm_pb2.VM_STATE_PAUSED
        resumed = server.vms.ResumeVm(vm_pb2.ResumeVmRequest(vm=vm.id)).vm
        assert (resumed.state, resumed.pid, resumed.boot_id) == (vm_pb2.VM_STATE_RUNNING, vm.pid, vm.boot_id)
    goes_on(server, vm)


def test_a_guest_that_sleeps_and_wakes_thrice_loses_nothing(server: Client, vm: vm_pb2.Vm) -> None:
    drawn = set()
    for cycle in range(_CYCLES):
        shell(server, vm, f"echo {cycle} >>/run/cycles; echo {cycle} >>/root/cycles")
        assert server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id)).vm.state == vm_pb2.VM_STATE_HIBERNATED
        time.sleep(1.0)  # of which a clock that stands still knows nothing
        awake = server.vms.WakeVm(vm_pb2.WakeVmRequest(vm=vm.id)).vm
        assert (awake.state, awake.sleep_error) == (vm_pb2.VM_STATE_RUNNING, "")
        goes_on(server, vm)
        drawn.add(shell(server, vm, "od -An -tx1 -N16 /dev/urandom"))
    assert len(drawn) == _CYCLES
    assert shell(server, vm, "cat /run/cycles /root/cycles") == 2 * "0\n1\n2\n"

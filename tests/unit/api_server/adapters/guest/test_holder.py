"""Nothing is said to whoever has an agent's vsock address after its VMM: HELLO has the token, REQUEST the command."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from ingle.api_server.adapters.guest.address import check_holder
from ingle.api_server.host.process import has_its_files, start_time_of
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import Holder, VsockAddress


@pytest.fixture
def vmm() -> Iterator["subprocess.Popen[bytes]"]:
    """A process, of which only that matters."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def address_of(vmm: "subprocess.Popen[bytes]") -> VsockAddress:
    started = start_time_of(vmm.pid)
    assert started is not None
    return VsockAddress(3, 1024, Holder(vmm.pid, started))


@pytest.mark.parametrize("reaped", [True, False])
def test_who_has_the_address_after_the_vmm_is_not_talked_to(vmm: "subprocess.Popen[bytes]", reaped: bool) -> None:
    address = address_of(vmm)
    vmm.kill()
    os.waitid(os.P_PID, vmm.pid, os.WEXITED | os.WNOWAIT)
    if reaped:
        vmm.poll()
    with pytest.raises(GuestError, match="its VMM has ended") as refused:
        check_holder(address)
    assert refused.value.reason is Reason.GUEST_UNREACHABLE


def test_a_vmm_that_lives_is_talked_to(vmm: "subprocess.Popen[bytes]") -> None:
    vmm.send_signal(signal.SIGSTOP)  # a host that is busy
    check_holder(address_of(vmm))


def test_another_process_with_the_same_pid_has_nothing_of_it(vmm: "subprocess.Popen[bytes]") -> None:
    started = start_time_of(vmm.pid)
    assert started is not None
    assert has_its_files(vmm.pid, started)
    assert not has_its_files(vmm.pid, started - 1)

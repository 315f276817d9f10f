"""How a VMM that ended is told, over a real process and a control socket that a test speaks through."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingle.api_server.adapters.qemu.vmm import QemuVmm
from ingle.api_server.adapters.vmm.console import mark_start, panic
from ingle.api_server.host.process import Process
from ingle.api_server.model.errors import ToolFailed
from ingle.api_server.ports.engine import VmPaths

_VERSION = b'{"return": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "Debian 1:7.2"}}\n'
_INSTALLED = "QEMU emulator version 7.2.22 (Debian 1:7.2)"
_POWERED_OFF = b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}\n'


async def installed() -> str:
    return _INSTALLED


class Control:
    """QMP's server side: greets, and answers each command with an empty string."""

    def __init__(self) -> None:
        self.writer: asyncio.StreamWriter

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        writer.write(b'{"QMP": {}}\n')
        while asked := await reader.readline():
            answers = {b"query-status": b'{"return": {"status": "running"}}\n', b"query-version": _VERSION}
            answer = next((answer for command, answer in answers.items() if command in asked), b'{"return": ""}\n')
            writer.write(answer)


@asynccontextmanager
async def living(root: Path) -> AsyncIterator[tuple[QemuVmm, Control]]:
    paths = VmPaths(root, root)
    control = Control()
    server = await asyncio.start_unix_server(control.serve, paths.control_socket)
    process = Process.spawn(["sleep", "1000"], directory=root, stderr=paths.vmm_log)
    try:
        vmm = await QemuVmm(process, paths, None, installed).connect("0" * 12, bytes(32), 10.0)
        yield vmm, control
        await vmm.close()
    finally:
        process.signal(signal.SIGKILL)
        server.close()


def let_it_die(vmm: QemuVmm) -> None:
    """Without a turn of the loop, so that everything that follows is there at once."""
    os.waitid(os.P_PID, vmm.pid, os.WEXITED | os.WNOWAIT)


async def test_a_guest_that_powered_off_is_no_failure_though_the_end_is_seen_before_the_event(tmp_path: Path) -> None:
    async with living(tmp_path) as (vmm, control):
        vmm.signal(signal.SIGKILL)
        let_it_die(vmm)
        control.writer.write(_POWERED_OFF)
        control.writer.close()
        assert await vmm.wait_gone()
        assert vmm.failure == ""
        assert not vmm.restarts


@pytest.mark.parametrize(
    ("said", "failure", "restarts"),
    [
        (b"", "", True),
        (b"reboot: Restarting system\r\n", "", True),
        (b"reboot: Restarting system with command 'power off'\r\n", "", False),
        (
            b"[    3.1] Kernel panic - not syncing: Attempted to kill init!\r\n[    3.2] Call Trace:\r\n",
            "the guest's kernel panicked: Attempted to kill init!",
            False,
        ),
    ],
)
async def test_a_reset_is_a_reboot_unless_the_kernel_panicked_or_the_agent_powered_off_in_this_boot(
    tmp_path: Path, said: bytes, failure: str, restarts: bool
) -> None:
    async with living(tmp_path) as (vmm, control):
        paths = VmPaths(tmp_path, tmp_path)
        paths.console_log.write_bytes(
            b"[ 9.9] Kernel panic - not syncing: in an earlier boot\r\n"
            b"[ 9.9] reboot: Restarting system with command 'power off'\r\n"
        )
        mark_start(paths)
        with paths.console_log.open("ab") as console:
            console.write(said)
        vmm.signal(signal.SIGKILL)
        let_it_die(vmm)
        control.writer.write(_POWERED_OFF.replace(b"shutdown", b"reset"))
        control.writer.close()
        assert await vmm.wait_gone()
        assert vmm.failure == failure
        assert vmm.restarts is restarts


def test_a_start_that_a_full_disk_left_unmarked_is_no_failure(tmp_path: Path) -> None:
    paths = VmPaths(tmp_path, tmp_path)
    paths.console_log.write_bytes(b"Kernel panic - not syncing: perhaps of this boot\r\n")
    paths.console_start.touch()
    assert panic(paths) == ""


async def test_a_vmm_that_was_killed_is_a_failure_that_says_how(tmp_path: Path) -> None:
    async with living(tmp_path) as (vmm, control):
        vmm.signal(signal.SIGKILL)
        control.writer.close()
        assert await vmm.wait_gone()
        assert vmm.failure == "QEMU was killed by signal 9"


async def test_a_guest_that_runs_is_not_saved_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    async with living(tmp_path) as (vmm, control):
        with pytest.raises(ToolFailed, match="a guest that runs can't be saved"):
            await vmm.save(tmp_path / "memory")
        vmm.signal(signal.SIGKILL)
        control.writer.close()
        await vmm.wait_gone()
    assert not list((tmp_path / "memory").iterdir())


async def test_a_guest_of_a_qemu_that_was_replaced_since_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "_INSTALLED", "QEMU emulator version 7.2.23 (Debian 1:7.2)")
    async with living(tmp_path) as (vmm, control):
        with pytest.raises(ToolFailed) as refusal:
            await vmm.save(tmp_path)
        vmm.signal(signal.SIGKILL)
        control.writer.close()
        await vmm.wait_gone()
    assert "runs in QEMU 7.2.22 (Debian 1:7.2)" in refusal.value.message
    assert "now there is QEMU emulator version 7.2.23" in refusal.value.message

"""What a Firecracker is asked for what is wanted of its guest, and how one that ended is told: over a real process, and
an API at which a test answers."""

import asyncio
import errno
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

import firecracker_api
from ingle.api_server.adapters.firecracker import machine, settle
from ingle.api_server.adapters.firecracker.memory import Memory
from ingle.api_server.adapters.firecracker.vmm import FirecrackerVmm
from ingle.api_server.adapters.vmm.console import mark_start
from ingle.api_server.host.process import Process
from ingle.api_server.model.errors import HostProblem, Reason, ToolFailed
from ingle.api_server.model.guest import HybridVsockAddress
from ingle.api_server.ports.engine import VmPaths

ID = "0123456789ab"
WAITS = "while ! read line <go; do sleep 0.01; done 2>/dev/null;"
_POWERED_OFF = b"reboot: Restarting system with command 'power off'\r\n"
_RESTARTED = b"reboot: Restarting system\r\n"
_PANIC = b"[    3.1] Kernel panic - not syncing: Attempted to kill init!\r\n[    3.2] Call Trace:\r\n"


class Api:
    """Takes what Firecracker's description has, and keeps it."""

    def __init__(self) -> None:
        self.state = "Not started"
        self.fault = ""
        self.asked: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n"):
            method, path, _ = head[0].split()
            length = next((int(line[15:]) for line in head if line.lower().startswith("content-length:")), 0)
            body = json.loads(await reader.readexactly(length) or "null")
            assert firecracker_api.problems(method, path, body) == []
            self.asked.append(f"{method} {path}" + (f" {json.dumps(body)}" if body else ""))
            await self.answers.wait()
            answer: dict[str, str] = {"id": f"ingle-{ID}", "state": self.state} if method == "GET" else {}
            if self.fault and method != "GET":
                answer = {"fault_message": self.fault}
            said = json.dumps(answer).encode()
            status = b"400 Bad Request" if "fault_message" in answer else b"200 OK"
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(said), said))

    async def turn_away(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As Firecracker does with who asks its vsock for a port on which nobody in the guest listens."""
        self.asked.append((await reader.readline()).decode().strip())
        writer.close()


@asynccontextmanager
async def living(root: Path, script: str = "sleep 1000") -> AsyncIterator[tuple[FirecrackerVmm, Api]]:
    paths, api = VmPaths(root, root), Api()
    server = await asyncio.start_unix_server(api.serve, paths.control_socket)
    vsock = await asyncio.start_unix_server(api.turn_away, paths.agent_socket)
    process = Process.spawn(["sh", "-c", script], directory=root, stderr=paths.vmm_log)
    vmm = FirecrackerVmm(process, paths, bytes(32))
    try:
        await vmm.connect(ID, 10.0)
        api.asked.clear()
        yield vmm, api
    finally:
        await vmm.end()
        server.close()
        vsock.close()


def console_says(root: Path, said: bytes) -> None:
    """In this boot, after another one that ended otherwise."""
    paths = VmPaths(root, root)
    paths.console_log.write_bytes(b"[ 9.9] Kernel panic - not syncing: in an earlier boot\r\n" + _POWERED_OFF)
    mark_start(paths)
    with paths.console_log.open("ab") as console:
        console.write(said)


async def test_a_guest_starts_once_and_one_from_a_memory_goes_on(tmp_path: Path) -> None:
    async with living(tmp_path) as (vmm, api):
        assert vmm.agent.address == HybridVsockAddress(str(tmp_path / "agent.sock"), 1024)
        await vmm.boot()
        api.state = "Paused"
        await vmm.boot()
        await vmm.pause()
        await vmm.resume()
    resume = ['PATCH /vm {"state": "Resumed"}', "CONNECT 1"]
    starts = ["GET /", 'PUT /actions {"action_type": "InstanceStart"}']
    assert api.asked == [*starts, "GET /", *resume, 'PATCH /vm {"state": "Paused"}', *resume]


@pytest.mark.parametrize("answer", ["", "OK 1073741824\n"], ids=["silent", "something listens there"])
async def test_a_guest_that_turns_nobody_away_is_waited_for_in_vain_no_longer_than_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    async def says(self: Api, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readline()).decode().strip())
        writer.write(answer.encode())
        await reader.read()
        writer.close()

    monkeypatch.setattr(Api, "turn_away", says)
    monkeypatch.setattr(settle, "_SECONDS", 0.05)
    async with living(tmp_path) as (vmm, api):
        await vmm.resume()
    assert api.asked == ['PATCH /vm {"state": "Resumed"}', "CONNECT 1"]


async def test_a_guest_without_a_vsock_goes_on(tmp_path: Path) -> None:
    async with living(tmp_path) as (vmm, api):
        (tmp_path / "agent.sock").unlink()
        await vmm.resume()
    assert api.asked == ['PATCH /vm {"state": "Resumed"}']


async def test_a_memory_is_two_files_of_its_owners(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    async with living(tmp_path) as (vmm, _):
        await vmm.save(memory)
    modes = {file.name: file.stat().st_mode & 0o777 for file in memory.iterdir()}
    assert modes == {"ram": 0o600, "vmstate": 0o600, "seal": 0o600}


async def test_who_gives_up_a_save_waits_until_nothing_more_is_written(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    async with living(tmp_path) as (vmm, api):
        api.answers.clear()
        saving = asyncio.create_task(vmm.save(memory))
        while not any("/snapshot/create" in each for each in api.asked):
            await asyncio.sleep(0.001)
        for _ in range(2):
            saving.cancel()
            await asyncio.sleep(0.01)
        assert not saving.done()
        assert {file.name for file in memory.iterdir()} == {"ram", "vmstate"}
        api.answers.set()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert list(memory.iterdir()) == []
        await vmm.save(memory)


async def test_a_memory_of_another_machine_is_refused_once_firecracker_has_told(tmp_path: Path) -> None:
    async with living(tmp_path) as (vmm, _):
        with pytest.raises(ToolFailed, match="of another machine"):
            await vmm.load(machine.save(Memory(tmp_path)), machine.Setting("/machine-config", {"vcpu_count": 1}))


async def test_a_memory_that_finds_no_room_leaves_nothing(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    async with living(tmp_path) as (vmm, api):
        api.fault = "Cannot write: No space left on device (os error 28)"
        with pytest.raises(HostProblem) as full:
            await vmm.save(memory)
        api.fault = "Operation not allowed"
        with pytest.raises(ToolFailed, match="Operation not allowed"):
            await vmm.save(memory)
    assert full.value.reason is Reason.DISK_FULL
    assert isinstance(full.value.__cause__, OSError)
    assert full.value.__cause__.errno == errno.ENOSPC
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "failure", "restarts"),
    [
        (b"", "", True),
        (_RESTARTED, "", True),
        (_POWERED_OFF, "", False),
        (_PANIC, "the guest's kernel panicked: Attempted to kill init!", False),
    ],
)
async def test_a_reset_is_a_reboot_unless_the_kernel_panicked_or_the_agent_powered_off_in_this_boot(
    tmp_path: Path, said: bytes, failure: str, restarts: bool
) -> None:
    async with living(tmp_path, f"{WAITS} exit 0") as (vmm, _):
        assert (vmm.failure, vmm.restarts) == ("", False)
        await ends(vmm, tmp_path, said)
        assert (vmm.failure, vmm.restarts) == (failure, restarts)


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("exit 148", "Firecracker exited with 148: bad luck (its system call filter forbade one)"),
        ("exit 1", "Firecracker exited with 1: bad luck"),
        ("kill -9 $$", "Firecracker was killed by signal 9: bad luck"),
    ],
)
async def test_one_that_was_not_ended_by_its_guest_is_a_failure_that_says_how(
    tmp_path: Path, script: str, failure: str
) -> None:
    async with living(tmp_path, f"{WAITS} echo bad luck >&2; {script}") as (vmm, _):
        await ends(vmm, tmp_path, _RESTARTED)
        assert (vmm.failure, vmm.restarts) == (failure, False)
        with pytest.raises(ToolFailed, match="bad luck"):
            await vmm.ready()


@pytest.mark.parametrize(
    ("said", "failure", "restarts"),
    [
        (b"", "Firecracker ended", False),
        (_RESTARTED, "", True),
        (_POWERED_OFF, "", False),
        (_PANIC, "the guest's kernel panicked: Attempted to kill init!", False),
    ],
)
async def test_of_an_adopted_one_the_guests_last_words_are_all_there_is(
    tmp_path: Path, said: bytes, failure: str, restarts: bool
) -> None:
    async with living(tmp_path, f"{WAITS} exit 0") as (first, _):
        adopted = Process.adopt(first.pid, first.start_time)
        assert adopted is not None
        vmm = await FirecrackerVmm(adopted, VmPaths(tmp_path, tmp_path), bytes(32)).connect(ID, 10.0)
        await ends(vmm, tmp_path, said)
        await first.wait_gone()
        assert (vmm.failure, vmm.restarts) == (failure, restarts)
        await vmm.close()


async def test_another_vms_is_not_taken(tmp_path: Path) -> None:
    async with living(tmp_path) as (vmm, _):
        with pytest.raises(ToolFailed, match="is another VM's"):
            await vmm.connect("ba9876543210", 10.0)


async def test_one_that_ends_before_it_listens_is_told_with_its_last_words(tmp_path: Path) -> None:
    paths = VmPaths(tmp_path, tmp_path)
    process = Process.spawn(["sh", "-c", "echo bad flags >&2; exit 153"], directory=tmp_path, stderr=paths.vmm_log)
    vmm = FirecrackerVmm(process, paths, bytes(32))
    with pytest.raises(ToolFailed, match="Firecracker exited with 153: bad flags"):
        await vmm.connect(ID, 10.0)
    await vmm.close()


async def ends(vmm: FirecrackerVmm, root: Path, said: bytes) -> None:
    console_says(root, said)
    (root / "go").write_text("now\n")
    assert await vmm.wait_gone(20.0)

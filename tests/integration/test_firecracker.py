"""The real Firecracker, up to where its guest would take KVM: it takes all that it is told, and is found and ended."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import firecracker_api
import firecracker_release
from harness import cloned_directory
from ingle.api_server.adapters.boot import Initramfs
from ingle.api_server.adapters.firecracker import FirecrackerEngine
from ingle.api_server.adapters.firecracker.api import Api, Body, Refused
from ingle.api_server.adapters.firecracker.vmm import FirecrackerVmm
from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.adapters.vmm import FoundVmms, seal
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import HostProblem, Reason, ToolFailed
from ingle.api_server.model.vm import Acceleration, Kernel, LiveVmm, Vm, VmSettings, VmState
from ingle.api_server.ports.disk import Disk, DiskFormat
from ingle.api_server.ports.engine import LaunchPlan, VmPaths
from ingle.api_server.programs import agent_binary

TOKEN = bytes(range(32))
Asked = list[tuple[str, str, Any]]


@pytest.fixture(scope="session")
def binary() -> str:
    return str(firecracker_release.cached() / "firecracker")


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Every request, each as Firecracker's description of them has it."""
    requests: Asked = []
    ask = Api._ask

    async def checked(self: Api, method: str, path: str, body: Body | None, seconds: float) -> bytes:
        assert firecracker_api.problems(method, path, body) == []
        requests.append((method, path, body))
        return await ask(self, method, path, body, seconds)

    monkeypatch.setattr(Api, "_ask", checked)
    return requests


class Host:
    """An engine, and VMs of it to be."""

    def __init__(self, root: Path, prepared: Path, kernel: Kernel, binary: str) -> None:
        tools = Tools(root)
        self._root = root
        self._kernel = kernel
        self._kernels = DirectoryLibrary(prepared / "state/ingle/kernels", tools)
        self._media = Initramfs(self._kernels, agent_binary(), root / "cache")
        self.engine = FirecrackerEngine(binary, tools, self._kernels, self._media, root / "cache")

    async def plan(self, **changes: Any) -> LaunchPlan:
        """In a directory whose path is longer than a socket's may be."""
        directory = self._root / ("d" * 100) / "0123456789ab"
        directory.mkdir(parents=True)
        disk = directory / "disk.raw"
        disk.touch()
        os.truncate(disk, 2**30)
        settings = VmSettings(
            image_id="",
            image_name="",
            kernel_id=self._kernel.id,
            kernel_name="",
            engine="firecracker",
            acceleration=Acceleration.KVM,
            disk_backend="copy",
            vcpus=2,
            memory_bytes=2**28,
            disk_bytes=2**30,
        )
        vm = Vm(directory.name, "demo", datetime.now(UTC), replace(settings, **changes), VmState.STARTING)
        paths = VmPaths(state=directory, runtime=directory)
        await self._media.write(self._kernel, self.engine.boot_config(vm, TOKEN, None), paths.initramfs)
        kernel = self._kernels.path(self._kernel.id)
        root, modules = Disk(disk, DiskFormat.RAW), kernel / "modules.squashfs"
        return LaunchPlan(vm, paths, kernel / "vmlinux", root, Acceleration.KVM, TOKEN, modules_disk=modules)


@pytest.fixture
async def host(prepared: Path, tmp_path: Path, binary: str) -> Host:
    with cloned_directory(prepared) as root:
        async with SqliteStore(root / "state/ingle/ingle.db") as store:
            kernel = await store.kernels.get("debian")
    return Host(tmp_path, prepared, kernel, binary)


@asynccontextmanager
async def launched(host: Host, plan: LaunchPlan) -> AsyncIterator[FirecrackerVmm]:
    vmm = await host.engine.launch(plan)
    assert isinstance(vmm, FirecrackerVmm)
    try:
        yield vmm
    finally:
        await vmm.end()


def processes_in(directory: Path) -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit() and _works_in(entry, directory)]


def _works_in(entry: "os.DirEntry[str]", directory: Path) -> bool:
    try:
        return Path(entry.path, "cwd").readlink() == directory
    except OSError:  # it ended, or is none of ours
        return False


async def test_it_takes_all_that_a_machine_is_made_of_and_stands_still(host: Host, asked: Asked) -> None:
    plan = await host.plan()
    async with launched(host, plan) as vmm:
        told = await vmm._api.get("/vm/config")
        assert (await vmm._api.get("/"))["state"] == "Not started"
        assert (told["machine-config"]["vcpu_count"], told["machine-config"]["mem_size_mib"]) == (2, 256)
        drives = [(each["path_on_host"], each["cache_type"], each["is_read_only"]) for each in told["drives"]]
        assert drives == [("root", "Writeback", False), ("modules", "Unsafe", True)]
        assert told["vsock"]["uds_path"] == "agent.sock"
        assert told["balloon"]["deflate_on_oom"] is True
        assert "entropy" in told
        assert f"{plan.paths.metrics}" in _descriptors(vmm.pid)
        sockets = [link for link in _descriptors(vmm.pid) if link.startswith("socket:")]
        assert len(sockets) == 3  # two that listen, for the API and for the agent, and one for all that was asked
    assert [path for method, path, _ in asked if method == "PUT"] == [
        *("/metrics", "/boot-source", "/machine-config", "/drives/root", "/drives/modules", "/vsock", "/balloon"),
        "/entropy",
    ]
    assert processes_in(plan.paths.state) == []


async def test_the_initramfs_may_be_removed_before_the_guest_starts(host: Host) -> None:
    plan = await host.plan()
    async with launched(host, plan) as vmm:
        plan.paths.initramfs.unlink()
        assert f"{plan.paths.initramfs} (deleted)" in _descriptors(vmm.pid)


async def test_what_it_refuses_is_told_and_leaves_no_process(host: Host) -> None:
    plan = await host.plan()
    plan.root_disk.path.unlink()
    with pytest.raises(ToolFailed, match=r"Firecracker refuses PUT /drives/root: .*No such file") as caught:
        await host.engine.launch(plan)
    assert isinstance(caught.value, Refused)
    assert processes_in(plan.paths.state) == []


async def test_a_memory_that_is_none_is_refused(host: Host, tmp_path: Path) -> None:
    plan, memory = await host.plan(), tmp_path / "memory"
    memory.mkdir()
    with pytest.raises(ToolFailed, match="seal: No such file"):
        await host.engine.launch(replace(plan, memory=memory))
    (memory / "stream").touch()
    await seal.write(memory, memory / "stream")
    with pytest.raises(ToolFailed, match="is not Firecracker's: stream"):
        await host.engine.launch(replace(plan, memory=memory))
    (memory / "vmstate").write_bytes(b"no state")
    (memory / "ram").touch()
    os.truncate(memory / "ram", 2**28)
    await seal.write(memory, memory / "ram", memory / "vmstate")
    with pytest.raises(ToolFailed, match="Firecracker refuses PUT /snapshot/load: Load snapshot error"):
        await host.engine.launch(replace(plan, memory=memory))
    (memory / "vmstate").write_bytes(b"NO STATE")
    with pytest.raises(ToolFailed, match="vmstate is not as it was written"):
        await host.engine.launch(replace(plan, memory=memory))
    with pytest.raises(ToolFailed, match="vmstate is not as it was written"):
        await host.engine.share(plan.vm, memory)
    assert processes_in(plan.paths.state) == []


async def test_cancelling_leaves_no_process(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = await host.plan()
    reached = asyncio.Event()

    async def stands_still(*_: object) -> None:
        reached.set()
        await asyncio.sleep(1000)

    monkeypatch.setattr(FirecrackerVmm, "set", stands_still)
    launching = asyncio.create_task(host.engine.launch(plan))
    await reached.wait()
    launching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launching
    assert processes_in(plan.paths.state) == []


async def test_the_next_server_takes_it_over(host: Host) -> None:
    plan = await host.plan()
    async with launched(host, plan) as vmm:
        live = LiveVmm(vmm.pid, vmm.start_time, Acceleration.KVM, datetime.now(UTC))
        taken = await host.engine.adopt(plan.vm, plan.paths, live, TOKEN)
        assert isinstance(taken, FirecrackerVmm)
        assert (await taken._api.get("/"))["state"] == "Not started"
        await taken.close()
        another = replace(plan.vm, id="ba9876543210")
        with pytest.raises(ToolFailed, match="is another VM's"):
            await host.engine.adopt(another, plan.paths, live, TOKEN)
    assert await host.engine.adopt(plan.vm, plan.paths, live, TOKEN) is None


async def test_one_that_nobody_wrote_down_is_found_and_ended(host: Host) -> None:
    plan = await host.plan()
    async with launched(host, plan) as vmm:
        await FoundVmms().kill_all(plan.paths)
        assert await vmm.wait_gone(10.0)
        assert vmm.failure == "Firecracker was killed by signal 9"
        assert not vmm.restarts


async def test_a_log_that_is_full_ends_nobody(host: Host) -> None:
    async with launched(host, await host.plan()) as vmm:
        assert _status(vmm.pid, "SigBlk") & 1 << signal.SIGXFSZ - 1
        assert _status(vmm.pid, "SigCgt") & 1 << signal.SIGXFSZ - 1  # it would end itself
        limit = vmm._process.file_limit
        assert limit is not None
        log = vmm._paths.console_log
        os.truncate(log, limit)
        with pytest.raises(Refused):
            await vmm._api.put("/vsock", {"guest_cid": 3, "uds_path": "/no/such/directory/socket"})
        os.kill(vmm.pid, signal.SIGXFSZ)
        assert (await vmm._api.get("/"))["state"] == "Not started"
        assert log.stat().st_size == limit


async def test_its_versions_are_told(host: Host, binary: str, tmp_path: Path) -> None:
    assert await host.engine.version() == firecracker_release.VERSION
    plan = await host.plan()
    key = await host.engine.memory_key(plan.vm, host._kernel, Acceleration.KVM)
    assert firecracker_release.VERSION in key
    assert key == await host.engine.memory_key(replace(plan.vm, id="ba9876543210"), host._kernel, Acceleration.KVM)
    larger = replace(plan.vm, settings=replace(plan.vm.settings, memory_bytes=2**29))
    assert key != await host.engine.memory_key(larger, host._kernel, Acceleration.KVM)


async def test_one_that_is_not_there_is_told_with_what_to_type(host: Host) -> None:
    absent = FirecrackerEngine("/no/firecracker", Tools(host._root), host._kernels, host._media, host._root)
    problem = await absent.problem()
    assert isinstance(problem, HostProblem)
    assert problem.reason is Reason.DEPENDENCY_MISSING
    assert "ingle engine install firecracker" in problem.remedy
    with pytest.raises(HostProblem, match="'/no/firecracker'"):
        await absent.version()


def _descriptors(pid: int) -> list[str]:
    return [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]


def _status(pid: int, name: str) -> int:
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[name], 16)

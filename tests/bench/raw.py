"""The floor: the same QEMU, kernel, initramfs and disk as an ingle VM's, with nothing of ingle around it."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness import Server
from ingle.api_server.adapters.boot import Initramfs
from ingle.api_server.adapters.disk import Qcow2Disk
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.qemu import command
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.agents import agent_binary
from ingle.api_server.host.tool import Tools
from ingle.api_server.host.tsc import tsc_khz
from ingle.api_server.model.errors import GuestError
from ingle.api_server.model.guest import AgentEndpoint, GuestNetwork, TcpAddress
from ingle.api_server.model.vm import Acceleration, Vm, VmState
from ingle.api_server.ports.disk import BootConfig
from ingle.api_server.ports.engine import LaunchPlan, VmPaths
from ingle.api_server.ports.guest import GuestChannel

_TOKEN = bytes(32)
_MEMORY = 512 * 2**20


class RawGuest:
    """QEMU started by hand. Whatever can be made before the clock starts is made before."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._acceleration = Acceleration.TCG

    def boot_seconds(self) -> float:
        """From starting QEMU until the agent answers a ping."""
        return asyncio.run(self._with_guest(lambda guest: guest.until_ready()))

    def stop_seconds(self) -> float:
        """Sync, shutdown, and QEMU is gone."""

        async def measure(guest: "_Guest") -> float:
            await guest.until_ready()
            began = time.perf_counter()
            await guest.channel.sync()
            await guest.channel.shutdown()
            await asyncio.to_thread(guest.process.wait)
            return time.perf_counter() - began

        return asyncio.run(self._with_guest(measure))

    @staticmethod
    def forwarded_port(pid: int) -> int:
        """The loopback TCP port on which a QEMU process listens (proc(5), net/tcp: state 0A is LISTEN)."""
        inodes = set()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(entry)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                return int(fields[1].partition(":")[2], 16)
        raise LookupError(f"process {pid} listens on no TCP port")

    async def _with_guest(self, measure: "Measure") -> float:
        directory = Path(tempfile.mkdtemp(prefix="ingle-raw-"))
        try:
            plan = await self._plan(directory)
            guest = _Guest(plan)
            try:
                return await measure(guest)
            finally:
                guest.process.kill()
                guest.process.wait()
        finally:
            shutil.rmtree(directory)

    async def _plan(self, directory: Path) -> LaunchPlan:
        tools = Tools(directory)
        state = self._server.state
        kernels = DirectoryLibrary(state / "kernels", tools)
        async with SqliteStore(state / "ingle.db") as store:
            kernel, image = await store.kernel("debian"), await store.image("debian:bookworm")
        paths = VmPaths(state=directory, runtime=directory)
        vm = Vm(
            id="0" * 12,
            name="raw",
            state=VmState.STARTING,
            image_id=image.id,
            image_name="",
            kernel_id=kernel.id,
            kernel_name="",
            engine="qemu",
            acceleration=self._acceleration,
            disk_backend="qcow2",
            vcpus=1,
            memory_bytes=_MEMORY,
            disk_bytes=8 * 2**30,
            created_at=datetime.now(UTC),
        )
        disk = Qcow2Disk(tools)
        await disk.create(state / "images" / image.id / "rootfs.ext4", directory, vm.disk_bytes)
        config = BootConfig(
            hostname="raw",
            root_device=command.ROOT_DEVICE,
            network=GuestNetwork("eth0", command.GUEST_ADDRESS, command.GUEST_GATEWAY, (command.GUEST_NAMESERVER,)),
            tcp_port=command.AGENT_PORT,
            token=_TOKEN,
            entropy=os.urandom(64),
            ready_device=command.READY_DEVICE,
        )
        await Initramfs(kernels, agent_binary(), directory / "cache").write(kernel, config, paths.initramfs)
        return LaunchPlan(
            vm=vm,
            paths=paths,
            vmlinux=kernels.path(kernel.id) / "vmlinux",
            root_disk=disk.disk_path(directory),
            acceleration=self._acceleration,
            token=_TOKEN,
        )


@dataclass
class _Guest:
    """One QEMU process."""

    plan: LaunchPlan

    def __post_init__(self) -> None:
        self._ready, ready_qemu = socket.socketpair()
        with ready_qemu, socket.socket(socket.AF_UNIX) as control:
            control.bind(str(self.plan.paths.control_socket))
            control.listen(1)
            argv = command.launch(
                "qemu-system-x86_64",
                self.plan,
                control_fd=control.fileno(),
                ready_fd=ready_qemu.fileno(),
                tsc_khz=tsc_khz(),
            )
            argv.remove("-S")
            self._began = time.perf_counter()
            self.process = subprocess.Popen(
                argv, cwd=self.plan.paths.state, pass_fds=(control.fileno(), ready_qemu.fileno())
            )

    async def until_ready(self) -> float:
        """Seconds from the start of the process to the agent's first answer."""
        self._ready.setblocking(False)
        await asyncio.get_running_loop().sock_recv(self._ready, 64)
        self._ready.close()
        port = RawGuest.forwarded_port(self.process.pid)
        self.channel: GuestChannel = Dialler().channel(AgentEndpoint(TcpAddress("127.0.0.1", port), _TOKEN))
        while True:
            try:
                await self.channel.ping()
            except GuestError:
                continue
            return time.perf_counter() - self._began


Measure = Callable[[_Guest], Awaitable[float]]

"""The floor: the same QEMU, kernel, initramfs and disk as an ingle VM's, with nothing of ingle around it."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
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
from ingle.api_server.adapters.vmm.launching import listening
from ingle.api_server.host.tool import Tools
from ingle.api_server.host.tsc import tsc_khz
from ingle.api_server.model.errors import GuestError
from ingle.api_server.model.guest import AgentEndpoint, GuestIdentity, GuestNetwork, SerialAddress
from ingle.api_server.model.vm import Acceleration, Vm, VmSettings, VmState
from ingle.api_server.ports.disk import BootConfig, Disk, DiskFormat
from ingle.api_server.ports.engine import LaunchPlan, VmPaths
from ingle.api_server.ports.guest import GuestChannel
from ingle.api_server.programs import agent_binary

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

    @contextmanager
    def answering(self, runner: asyncio.Runner) -> Iterator["_Guest"]:
        """A guest that answers, for as long as the context; `runner` is what asks it."""
        context = self._guest()
        guest = runner.run(context.__aenter__())
        try:
            runner.run(guest.until_ready())
            yield guest
        finally:
            runner.run(context.__aexit__(None, None, None))

    async def _with_guest(self, measure: "Measure") -> float:
        async with self._guest() as guest:
            return await measure(guest)

    @asynccontextmanager
    async def _guest(self) -> AsyncIterator["_Guest"]:
        directory = Path(tempfile.mkdtemp(prefix="ingle-raw-"))
        try:
            guest = _Guest(await self._plan(directory))
            try:
                yield guest
            finally:
                guest.close()
        finally:
            shutil.rmtree(directory)

    async def _plan(self, directory: Path) -> LaunchPlan:
        tools = Tools(directory)
        state = self._server.state
        kernels = DirectoryLibrary(state / "kernels", tools)
        async with SqliteStore(state / "ingle.db") as store:
            kernel, image = await store.kernels.get("debian"), await store.images.get("debian:bookworm")
        paths = VmPaths(state=directory, runtime=directory)
        vm = Vm(
            id="0" * 12,
            name="raw",
            created_at=datetime.now(UTC),
            settings=VmSettings(
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
            ),
            state=VmState.STARTING,
        )
        disk = Qcow2Disk(tools)
        await disk.create(
            Disk(state / "images" / image.id / "rootfs.ext4", DiskFormat.RAW), directory, vm.settings.disk_bytes
        )
        config = BootConfig(
            GuestIdentity(
                token=_TOKEN,
                hostname="raw",
                networks=(
                    GuestNetwork("eth0", command.GUEST_ADDRESS, command.GUEST_GATEWAY, (command.GUEST_NAMESERVER,)),
                ),
                entropy=os.urandom(64),
            ),
            root_device=command.ROOT_DEVICE,
            serial_port=command.SERIAL_PORT,
            ready_device=command.READY_DEVICE,
            modules_device=command.MODULES_DEVICE,
        )
        await Initramfs(kernels, agent_binary(), directory / "cache").write(kernel, config, paths.initramfs)
        return LaunchPlan(
            vm=vm,
            paths=paths,
            vmlinux=kernels.path(kernel.id) / "vmlinux",
            modules_disk=kernels.path(kernel.id) / "modules.squashfs" if kernel.disk_modules else None,
            root_disk=Disk(disk.disk_path(directory), disk.format),
            acceleration=self._acceleration,
            token=_TOKEN,
        )


@dataclass
class _Guest:
    """One QEMU process."""

    plan: LaunchPlan

    def __post_init__(self) -> None:
        self._ready, ready_qemu = socket.socketpair()
        paths = self.plan.paths
        with ready_qemu, listening(paths.control_socket) as control, listening(paths.agent_socket) as agent:
            argv = command.launch(
                "qemu-system-x86_64",
                self.plan,
                control_fd=control.fileno(),
                ready_fd=ready_qemu.fileno(),
                agent_fd=agent.fileno(),
                tsc_khz=tsc_khz(),
            )
            argv.remove("-S")
            self._began = time.perf_counter()
            passed = [end.fileno() for end in (control, ready_qemu, agent)]
            self.process = subprocess.Popen(argv, cwd=paths.state, pass_fds=passed)

    async def until_ready(self) -> float:
        """Seconds from the start of the process to the agent's first answer."""
        self._ready.setblocking(False)
        await asyncio.get_running_loop().sock_recv(self._ready, 64)
        self._ready.close()
        self._dialler = Dialler()
        address = SerialAddress(str(self.plan.paths.agent_socket))
        self.channel: GuestChannel = self._dialler.channel(AgentEndpoint(address, _TOKEN))
        while True:
            try:
                await self.channel.ping()
            except GuestError:
                continue
            return time.perf_counter() - self._began

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        if hasattr(self, "_dialler"):
            self._dialler.close()


Measure = Callable[[_Guest], Awaitable[float]]

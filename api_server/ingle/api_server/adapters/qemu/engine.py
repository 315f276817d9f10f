"""Starts, adopts and kills QEMU processes."""

import os
import re
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path

from ingle.api_server.adapters.qemu import command
from ingle.api_server.adapters.qemu.memory import Memory, sealed, share
from ingle.api_server.adapters.qemu.vmm import QemuVmm
from ingle.api_server.adapters.vmm import boot, launching, probe
from ingle.api_server.adapters.vmm.cage import Cage, view_of
from ingle.api_server.adapters.vmm.seal import Seals
from ingle.api_server.host import sockets
from ingle.api_server.host.process import Process
from ingle.api_server.host.processor import processor
from ingle.api_server.host.resolver import asks_ipv6_alone
from ingle.api_server.host.tool import Tools, require
from ingle.api_server.host.tsc import tsc_khz
from ingle.api_server.model.errors import HostProblem, ToolFailed
from ingle.api_server.model.guest import GuestNetwork
from ingle.api_server.model.network import Protocol, PublishedPort
from ingle.api_server.model.rates import DiskRates
from ingle.api_server.model.vm import Acceleration, Init, Kernel, LiveVmm, Vm
from ingle.api_server.ports.disk import BootConfig, BootMedia, DiskFormat
from ingle.api_server.ports.engine import EngineInfo, LaunchPlan, NetworkKind, Vmm, VmPaths
from ingle.api_server.ports.network import Link
from ingle.api_server.ports.sources import Library

BINARY = "qemu-system-x86_64"
VERDICTS = "kvm"
"""What the names of its probes' verdicts begin with."""

# Loading takes 0.1 s on most hosts, and 10 on one that is busy and emulated. One that has loaded answers or hangs.
_LOAD_SECONDS = 30.0
_ANSWER_SECONDS = 10.0
_DEVICES = ("/dev/kvm", "/dev/vhost-vsock", "/dev/net/tun")
_SOCKET_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


class QemuEngine:
    """Implements ports.engine.Engine."""

    info = EngineInfo(
        name="qemu",
        accelerations=frozenset({Acceleration.KVM, Acceleration.TCG}),
        disk_formats=frozenset({DiskFormat.RAW, DiskFormat.QCOW2}),
        networks=frozenset({NetworkKind.USER, NetworkKind.SHARED}),
        saves=True,
    )

    def __init__(self, tools: Tools, kernels: Library, media: BootMedia, cache: Path, cage: Cage | None = None) -> None:
        self._tools = tools
        self._cage = cage or Cage(tools, wanted=False)
        self._seals = Seals()
        self._version: tuple[object, str] | None = None
        self._kernels = kernels
        self._probe = probe.AccelerationProbe(
            VERDICTS, self._probe_command, command.READY_DEVICE, media, cache, tools.environment
        )

    def boot_config(self, vm: Vm, token: bytes, link: Link | None) -> BootConfig:
        vsock = _on_vsock(vm)
        return boot.boot_config(
            vm,
            token,
            _user_networks(vm) if link is None else boot.shared_networks(link),
            root_device=command.ROOT_DEVICE,
            modules_device=command.MODULES_DEVICE,
            ready_device=command.READY_DEVICE,
            serial_port="" if vsock else command.SERIAL_PORT,
            vsock_port=command.AGENT_PORT if vsock else 0,
        )

    async def problem(self) -> HostProblem | None:
        try:
            require(BINARY)
        except HostProblem as problem:
            return problem
        return None

    async def acceleration_problem(self, acceleration: Acceleration, kernel: Kernel) -> str:
        return "" if acceleration is Acceleration.TCG else await self._probe.problem_with_kvm(kernel)

    def check(self, paths: VmPaths, ports: Sequence[PublishedPort]) -> None:
        require(BINARY)
        for port in ports:
            sockets.check_port(port.address, port.host_port, _SOCKET_KINDS[port.protocol])

    async def launch(self, plan: LaunchPlan) -> Vmm:
        # In a network that VMs share the ports are taken by now, for this very VM.
        self.check(plan.paths, plan.vm.settings.ports if plan.link is None else ())
        memory = None if plan.memory is None else await self._memory(plan.memory)
        with _listening(plan) as (control, agent), ExitStack() as ours:
            ready = ready_qemu = None
            if memory is None:
                ready, ready_qemu = socket.socketpair()
                ours.enter_context(ready_qemu)
            argv = command.launch(
                BINARY,
                plan,
                control_fd=control.fileno(),
                ready_fd=None if ready_qemu is None else ready_qemu.fileno(),
                agent_fd=None if agent is None else agent.fileno(),
                tsc_khz=tsc_khz(),
                ipv6=asks_ipv6_alone(),
                ram=memory.ram if memory is not None and memory.shared else None,
            )
            mapped = (memory.ram,) if memory is not None and memory.shared else ()
            vmm = await self._spawn(argv, plan, (control, ready_qemu, agent), ready, mapped)
        async with _ended_if_in_vain(vmm):
            await vmm.connect(plan.vm.id, plan.token, _LOAD_SECONDS)
            if memory is not None:
                await vmm.load(memory)
            if (rates := plan.vm.settings.disk_rates) != DiskRates():
                await vmm.limit_disk(rates)
        return vmm

    async def share(self, vm: Vm, directory: Path) -> None:
        memory = await self._memory(directory)
        if not memory.shared:
            await share(memory, command.MEMORY, vm.settings.memory_bytes)

    async def _memory(self, directory: Path) -> Memory:
        """Raises ToolFailed(VMM_FAILED) where it is damaged or none."""
        memory = sealed(directory)
        await self._seals.check(directory)
        return memory

    async def memory_key(self, vm: Vm, kernel: Kernel, acceleration: Acceleration) -> str:
        cpu = processor() if acceleration is Acceleration.KVM else f"TSC {round(tsc_khz() / 1000)} MHz"
        modules = kernel.disk_modules > 0
        hardware = command.hardware(vm, acceleration, on_vsock=_on_vsock(vm), modules_disk=modules)
        return "\n".join((await self._told_version(), f"kernel {kernel.id}", cpu, *hardware))

    async def adopt(self, vm: Vm, paths: VmPaths, live: LiveVmm, token: bytes) -> Vmm | None:
        found = Process.adopt(live.pid, live.start_time)
        if found is None:
            return None
        vmm = QemuVmm(found, paths, None, self._told_version)
        try:
            return await vmm.connect(vm.id, token, _ANSWER_SECONDS)
        except ToolFailed:
            gone = await found.wait(0)
            await vmm.close()
            if not gone:
                raise
            return None

    async def version(self) -> str:
        said = await self._told_version()
        version = re.search(r"version (\S+)", said)
        return version[1] if version else said

    async def _spawn(
        self,
        argv: Sequence[str],
        plan: LaunchPlan,
        passed: Iterable[socket.socket | None],
        ready: socket.socket | None,
        mapped: Sequence[Path],
    ) -> QemuVmm:
        """`ready` is the new VMM's, or closed. `mapped` is its memory."""
        try:
            descriptors = [end.fileno() for end in passed if end is not None]
            program, view = require(BINARY), view_of(plan, *_DEVICES, writes=mapped)
            cage = await self._cage.around(program, plan.paths, view)
            child = await launching.spawn((program, *argv[1:]), plan.vm, plan.paths, descriptors, cage=cage)
        except BaseException:
            if ready is not None:
                ready.close()
            raise
        if ready is not None:
            ready.setblocking(False)
        return QemuVmm(child, plan.paths, ready, self._told_version)

    def _probe_command(self, kernel: Kernel, directory: Path) -> list[str]:
        vmlinux = self._kernels.path(kernel.id) / "vmlinux"
        arguments = command.kernel_arguments(Acceleration.KVM, 0)
        return [
            BINARY,
            *command.machine(Acceleration.KVM, 1, probe.MEMORY_BYTES),
            *command.serial("null", f"file,path={probe.READY}"),
            *command.boot(vmlinux, directory / probe.INITRAMFS, arguments),
        ]

    async def _told_version(self) -> str:
        """Its first line. It is asked once for each binary that has been there."""
        binary = require(BINARY)
        status = os.stat(binary)
        which = (binary, status.st_ino, status.st_mtime_ns)
        if self._version is None or self._version[0] != which:
            said = (await self._tools.run([BINARY, "--version"])).decode()
            self._version = which, said.splitlines()[0]
        return self._version[1]


@contextmanager
def _listening(plan: LaunchPlan) -> Iterator[tuple[socket.socket, socket.socket | None]]:
    """For the control connection, and for the agent where it is behind a serial port."""
    paths = plan.paths
    with launching.listening(paths.control_socket) as control:
        if _on_vsock(plan.vm):
            paths.agent_socket.unlink(missing_ok=True)
            yield control, None
        else:
            with launching.listening(paths.agent_socket) as agent:
                yield control, agent


@asynccontextmanager
async def _ended_if_in_vain(vmm: QemuVmm) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        await vmm.end()
        raise


def _user_networks(vm: Vm) -> boot.Networks:
    """Of a VM behind QEMU's own."""
    here, mac = boot.INTERFACE, boot.user_mac(vm.id)
    if not asks_ipv6_alone():
        return (GuestNetwork(here, command.GUEST_ADDRESS, command.GUEST_GATEWAY, (command.GUEST_NAMESERVER,), mac),)
    return (
        GuestNetwork(here, command.GUEST_ADDRESS, command.GUEST_GATEWAY, (command.GUEST_NAMESERVER6,), mac),
        GuestNetwork(here, command.GUEST_ADDRESS6, command.GUEST_GATEWAY6, ()),
    )


def _on_vsock(vm: Vm) -> bool:
    """Whether the guest's agent is there, the kernel's way, without QEMU between the two. Anybody on the host may call
    it there, and guests that come from one memory have one token until they are told theirs: so none that are made to
    be saved and forked."""
    return vm.settings.init is Init.IMAGE and _vsock_usable()


@cache
def _vsock_usable() -> bool:
    """Whether this user may give guests a vsock."""
    try:
        os.close(os.open("/dev/vhost-vsock", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True

"""Starts, adopts and kills QEMU processes."""

import errno
import logging
import os
import re
import signal
import socket
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

from ingle.api_server.adapters.qemu import command, console
from ingle.api_server.adapters.qemu.probe import AccelerationProbe
from ingle.api_server.adapters.qemu.vmm import QemuVmm
from ingle.api_server.host import bounded_log, process, sockets
from ingle.api_server.host.process import Process
from ingle.api_server.host.resolver import asks_ipv6_alone
from ingle.api_server.host.tool import Tools, require
from ingle.api_server.host.tsc import tsc_khz
from ingle.api_server.model.errors import HostProblem, Reason, ToolFailed
from ingle.api_server.model.exhaustion import exhaustion
from ingle.api_server.model.guest import GuestNetwork, TcpAddress, VsockAddress
from ingle.api_server.model.network import Protocol, PublishedPort
from ingle.api_server.model.vm import Acceleration, Init, Kernel, Running, Vm
from ingle.api_server.ports.disk import BootConfig, BootMedia
from ingle.api_server.ports.engine import Ending, LaunchPlan, Vmm, VmPaths
from ingle.api_server.ports.network import Link
from ingle.api_server.ports.sources import Library

log = logging.getLogger(__name__)

BINARY = "qemu-system-x86_64"

# Loading takes 0.1 s on most hosts, and 10 on one that is busy and emulated. One that has loaded answers or hangs.
_LOAD_SECONDS = 30.0
_ANSWER_SECONDS = 10.0
_SPARE_BYTES = 2**30
_SOCKET_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


class QemuEngine:
    """Implements ports.engine.Engine."""

    name = "qemu"

    def __init__(self, tools: Tools, kernels: Library, media: BootMedia, cache: Path) -> None:
        self._tools = tools
        self._probe = AccelerationProbe(BINARY, kernels, media, cache)

    def boot_config(self, vm: Vm, token: bytes, link: Link | None) -> BootConfig:
        network, network6 = _guest_networks(link)
        return BootConfig(
            hostname=vm.name,
            root_device=command.ROOT_DEVICE,
            network=network,
            network6=network6,
            tcp_port=0 if _vsock_usable() else command.AGENT_PORT,
            vsock_port=command.AGENT_PORT if _vsock_usable() else 0,
            token=token,
            env=vm.env,
            entropy=os.urandom(64),
            ready_device=command.READY_DEVICE,
            image_init=vm.init is Init.IMAGE,
        )

    async def acceleration(self, wish: Acceleration, kernel: Kernel) -> Acceleration:
        if wish is Acceleration.TCG:
            return Acceleration.TCG
        problem = await self._probe.problem_with_kvm(kernel)
        if not problem:
            return Acceleration.KVM
        if wish is Acceleration.KVM:
            raise HostProblem(Reason.DEPENDENCY_MISSING, f"KVM does not work here: {problem}", "use --accel tcg")
        return Acceleration.TCG

    def check(self, paths: VmPaths, ports: Sequence[PublishedPort]) -> None:
        require(BINARY)
        for port in ports:
            sockets.check_port(port.address, port.host_port, _SOCKET_KINDS[port.protocol])

    async def launch(self, plan: LaunchPlan) -> Vmm:
        # In a network that VMs share the ports are taken by now, for this very VM.
        self.check(plan.paths, plan.vm.ports if plan.link is None else ())
        plan.paths.vmm_log.unlink(missing_ok=True)
        logs = (plan.paths.console_log, plan.paths.vmm_log)
        bounded = begun(logs, _behind_disks(plan.vm))
        console.mark_start(plan.paths)
        ready, ready_qemu = socket.socketpair()
        with ready_qemu, socket.socket(socket.AF_UNIX) as control:
            plan.paths.control_socket.unlink(missing_ok=True)
            with sockets.short_path(plan.paths.control_socket) as name:
                control.bind(name)
            control.listen(1)
            argv = command.launch(
                BINARY,
                plan,
                control_fd=control.fileno(),
                ready_fd=ready_qemu.fileno(),
                tsc_khz=tsc_khz(),
                vsock=_vsock_usable(),
                ipv6=asks_ipv6_alone(),
            )
            try:
                child = Process.spawn(
                    argv,
                    directory=plan.paths.state,
                    stderr=plan.paths.vmm_log,
                    pass_fds=(control.fileno(), ready_qemu.fileno()),
                )
            except OSError as error:
                ready.close()
                if exhaustion(error):
                    raise
                raise ToolFailed(Reason.VMM_FAILED, f"{BINARY} can't be started: {error}") from error
        if bounded:
            child.limit_files(bounded_log.limit(logs))
        ready.setblocking(False)
        vmm = QemuVmm(child, plan.paths, ready)
        try:
            agent = _unforwarded(plan.vm.id, "" if plan.link is None else plan.link.address)
            return await vmm.connect(plan.token, agent, _LOAD_SECONDS)
        except BaseException:
            child.signal(signal.SIGKILL)
            try:
                await child.wait()
            finally:
                await vmm.close()
            raise

    async def adopt(self, vm: Vm, paths: VmPaths, running: Running, token: bytes) -> Vmm | None:
        found = Process.adopt(running.pid, running.start_time)
        if found is None:
            return None
        vmm = QemuVmm(found, paths, None)
        try:
            return await vmm.connect(token, _unforwarded(vm.id, running.address), _ANSWER_SECONDS)
        except ToolFailed:
            gone = await found.wait(0)
            await vmm.close()
            if not gone:
                raise
            return None

    def ending(self, paths: VmPaths) -> Ending | None:
        return console.ending(paths)

    async def kill_all(self, paths: VmPaths) -> None:
        name = command.process_name(paths.state.name)
        for found in process.find(lambda argv: ("-name", name) in pairwise(argv)):
            found.signal(signal.SIGKILL)
            try:
                await found.wait()
            finally:
                found.close()

    async def version(self) -> str:
        said = (await self._tools.run([BINARY, "--version"])).decode()
        version = re.search(r"version (\S+)", said)
        return version[1] if version else said.splitlines()[0]


def _behind_disks(vm: Vm) -> int:
    """An offset that no file of the VM's but a log has: its disk with what qcow2 adds, its memory."""
    return vm.disk_bytes + vm.disk_bytes // 8 + vm.memory_bytes + _SPARE_BYTES


def begun(logs: Sequence[Path], offset: int) -> bool:
    """Whether the logs are where they can be limited."""
    try:
        furthest = max([offset, *(file.stat().st_size for file in logs if file.exists())])
        for file in logs:
            bounded_log.begin(file, furthest)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        log.warning("logs are bounded while a server runs, and only then: %s", error, extra={"offset": offset})
        return False
    return True


def _unforwarded(vm_id: str, address: str) -> TcpAddress | VsockAddress:
    """Where the agent is when no port of the host leads to it."""
    if address and not _vsock_usable():
        return TcpAddress(address, command.AGENT_PORT)
    return VsockAddress(command.vsock_cid(vm_id), command.AGENT_PORT)


def _guest_networks(link: Link | None) -> tuple[GuestNetwork, GuestNetwork | None]:
    """For IPv4, and for IPv6 where there is any."""
    if link is None:
        if asks_ipv6_alone():
            return (
                GuestNetwork("eth0", command.GUEST_ADDRESS, command.GUEST_GATEWAY, (command.GUEST_NAMESERVER6,)),
                GuestNetwork("eth0", command.GUEST_ADDRESS6, command.GUEST_GATEWAY6, ()),
            )
        return GuestNetwork("eth0", command.GUEST_ADDRESS, command.GUEST_GATEWAY, (command.GUEST_NAMESERVER,)), None
    ipv4 = GuestNetwork("eth0", f"{link.address}/{link.prefix_length}", link.gateway, (link.gateway,))
    return ipv4, GuestNetwork("eth0", f"{link.address6}/64", link.gateway6, ()) if link.address6 else None


@cache
def _vsock_usable() -> bool:
    """Whether this user may give guests a vsock: no port of the host is needed then, and no other user can call."""
    try:
        os.close(os.open("/dev/vhost-vsock", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True

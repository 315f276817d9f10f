"""Starts and adopts Firecracker processes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ingle.api_server.adapters.firecracker import machine, metrics
from ingle.api_server.adapters.firecracker.memory import Memory, sealed
from ingle.api_server.adapters.firecracker.program import Program, check_version
from ingle.api_server.adapters.firecracker.vmm import FirecrackerVmm
from ingle.api_server.adapters.vmm import boot, launching, probe
from ingle.api_server.adapters.vmm.cage import Cage, view_of
from ingle.api_server.adapters.vmm.seal import Seals
from ingle.api_server.host.files import remove_tree
from ingle.api_server.host.process import Process
from ingle.api_server.host.processor import processor
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import HostProblem, ToolFailed
from ingle.api_server.model.network import PublishedPort
from ingle.api_server.model.vm import Acceleration, Kernel, LiveVmm, Vm
from ingle.api_server.ports.disk import BootConfig, BootMedia, Disk, DiskFormat
from ingle.api_server.ports.engine import EngineInfo, LaunchPlan, NetworkKind, Vmm, VmPaths
from ingle.api_server.ports.network import Link
from ingle.api_server.ports.sources import Library

NAME = "firecracker"
VERDICTS = "firecracker"
"""What the names of its probes' verdicts begin with."""

_DEVICES = ("/dev/kvm", "/dev/net/tun")
_START_SECONDS = 30.0  # to listen, of a host that is busy
_ANSWER_SECONDS = 10.0


class FirecrackerEngine:
    """Implements ports.engine.Engine. `program`: its name, or its path."""

    info = EngineInfo(
        name=NAME,
        accelerations=frozenset({Acceleration.KVM}),
        disk_formats=frozenset({DiskFormat.RAW}),
        networks=frozenset({NetworkKind.SHARED}),
        most_vcpus=machine.MOST_VCPUS,
        saves=True,
    )

    def __init__(
        self, program: str, tools: Tools, kernels: Library, media: BootMedia, cache: Path, cage: Cage | None = None
    ) -> None:
        self._program = Program(program, tools)
        self._cage = cage or Cage(tools, wanted=False)
        self._kernels = kernels
        self._seals = Seals()
        self._probe = probe.AccelerationProbe(
            VERDICTS, self._probe_command, machine.CONSOLE_DEVICE, media, cache, tools.environment
        )

    def boot_config(self, vm: Vm, token: bytes, link: Link | None) -> BootConfig:
        return boot.boot_config(
            vm,
            token,
            () if link is None else boot.shared_networks(link),
            root_device=machine.ROOT_DEVICE,
            modules_device=machine.MODULES_DEVICE,
            ready_device="",
            vsock_port=machine.AGENT_PORT,
        )

    async def problem(self) -> HostProblem | None:
        try:
            await self._program.check()
        except HostProblem as problem:
            return problem
        return None

    async def acceleration_problem(self, acceleration: Acceleration, kernel: Kernel) -> str:
        return await self._probe.problem_with_kvm(kernel)

    def check(self, paths: VmPaths, ports: Sequence[PublishedPort]) -> None:
        self._program.require()

    async def launch(self, plan: LaunchPlan) -> Vmm:
        program = self._program.require()
        memory = None if plan.memory is None else await self._memory(plan.memory)
        paths = plan.paths
        disks = {machine.DISK: plan.root_disk.path, machine.MODULES: plan.modules_disk}
        for left in (paths.control_socket, paths.agent_socket, *(paths.state / name for name in disks)):
            left.unlink(missing_ok=True)  # it binds and links to nothing that is there
        for name, disk in disks.items():
            if disk is not None:
                (paths.state / name).symlink_to(disk)
        metrics.make(paths.metrics)
        argv = machine.command(program, plan.vm.id, paths.control_socket.name)
        cage = await self._cage.around(program, paths, view_of(plan, *_DEVICES))
        child = await launching.spawn(argv, plan.vm, paths, cage=cage, console_is_stdout=True)
        vmm = FirecrackerVmm(child, paths, plan.token)
        try:
            await vmm.connect(plan.vm.id, _START_SECONDS)
            check_version(await vmm.version())
            await vmm.set(machine.metrics(paths.metrics.name))
            if memory is None:
                await vmm.set(*machine.settings(plan))
            else:
                await vmm.load(machine.load(plan, memory), machine.size(plan))
                await vmm.limit_disk(plan.vm.settings.disk_rates)
        except BaseException:
            await vmm.end()
            raise
        return vmm

    async def share(self, vm: Vm, directory: Path) -> None:
        await self._memory(directory)

    async def _memory(self, directory: Path) -> Memory:
        """Raises ToolFailed(VMM_FAILED) where it is damaged or none."""
        memory = sealed(directory)
        await self._seals.check(directory)
        return memory

    async def memory_key(self, vm: Vm, kernel: Kernel, acceleration: Acceleration) -> str:
        nowhere = Path()
        link = Link("", "", "", 0, "")  # all have the same card
        of_none = replace(vm, id="0" * len(vm.id))
        disk = Disk(nowhere, DiskFormat.RAW)
        modules = nowhere if kernel.disk_modules else None
        plan = LaunchPlan(
            of_none, VmPaths(nowhere, nowhere), nowhere, disk, acceleration, b"", link, modules_disk=modules
        )
        hardware = [f"{each.path} {json.dumps(each.body, sort_keys=True)}" for each in machine.hardware(plan)]
        return "\n".join((f"Firecracker {await self.version()}", f"kernel {kernel.id}", processor(), *hardware))

    async def adopt(self, vm: Vm, paths: VmPaths, live: LiveVmm, token: bytes) -> Vmm | None:
        found = Process.adopt(live.pid, live.start_time)
        if found is None:
            return None
        remove_tree(paths.written)  # whose server was killed while it saved
        vmm = FirecrackerVmm(found, paths, token)
        try:
            return await vmm.connect(vm.id, _ANSWER_SECONDS)
        except ToolFailed:
            gone = await found.wait(0)
            await vmm.close()
            if not gone:
                raise
            return None

    async def version(self) -> str:
        return await self._program.version()

    def _probe_command(self, kernel: Kernel, directory: Path) -> list[str]:
        vmlinux = self._kernels.path(kernel.id) / "vmlinux"
        configuration = machine.probe(vmlinux, directory / probe.INITRAMFS, probe.MEMORY_BYTES)
        (directory / "machine.json").write_text(json.dumps(configuration))
        return [self._program.require(), "--no-api", "--config-file", "machine.json", "--level", "Error"]

"""Start the VMM process, stopped before the first guest instruction."""

from collections.abc import Mapping
from dataclasses import replace

from ingle.api_server.ports.engine import Engine, LaunchPlan, Vmms, engine_of
from ingle.api_server.ports.sources import Library
from ingle.api_server.steps.target import Cold, Start, VmTarget


class Launch(Cold):
    """Undo finds the process by the VM's id, so it works although nobody wrote the pid down."""

    name = "launch"
    text = "starting the VMM"

    def __init__(self, engines: Mapping[str, Engine], vmms: Vmms, kernels: Library) -> None:
        self._engines = engines
        self._vmms = vmms
        self._kernels = kernels

    async def run(self, target: Start) -> None:
        target.vmm = await engine_of(target.vm, self._engines).launch(_launch_plan(target, self._kernels))

    async def undo(self, target: VmTarget) -> None:
        await self._vmms.kill_all(target.paths)
        if isinstance(target, Start) and target.vmm is not None:
            await target.vmm.close()


def _launch_plan(target: Start, kernels: Library) -> LaunchPlan:
    """What the VMM is started with."""
    vm, kernel = target.vm, kernels.path(target.kernel.id)
    if target.publishes_later:
        vm = replace(vm, settings=replace(vm.settings, ports=()))
    return LaunchPlan(
        vm=vm,
        paths=target.paths,
        vmlinux=kernel / "vmlinux",
        root_disk=target.attached_disk,
        acceleration=target.acceleration,
        token=target.token,
        link=target.link,
        modules_disk=kernel / "modules.squashfs" if target.kernel.disk_modules else None,
        memory=target.memory,
    )

"""Start the VMM process, stopped before the first guest instruction."""

from ingle.api_server.ports.engine import Engine, LaunchPlan
from ingle.api_server.ports.sources import Library
from ingle.api_server.steps.target import Start, VmTarget


class Launch:
    """Undo finds the process by the VM's id, so it works although nobody wrote the pid down."""

    name = "launch"
    text = "starting the VMM"

    def __init__(self, engine: Engine, kernels: Library) -> None:
        self._engine = engine
        self._kernels = kernels

    async def run(self, target: Start) -> None:
        plan = LaunchPlan(
            vm=target.vm,
            paths=target.paths,
            vmlinux=self._kernels.path(target.kernel.id) / "vmlinux",
            root_disk=target.attached_disk,
            acceleration=target.acceleration,
            token=target.token,
            link=target.link,
        )
        target.vmm = await self._engine.launch(plan)

    async def undo(self, target: VmTarget) -> None:
        await self._engine.kill_all(target.paths)
        if isinstance(target, Start) and target.vmm is not None:
            await target.vmm.close()

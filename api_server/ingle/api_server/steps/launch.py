"""Start the VMM process, stopped before the first guest instruction."""

from collections.abc import Mapping

from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.engine import Engine, LaunchPlan
from ingle.api_server.ports.sources import Library
from ingle.api_server.steps.target import Start, VmTarget


class Launch:
    """Undo finds the process by the VM's id, so it works although nobody wrote the pid down."""

    name = "launch"
    text = "starting the VMM"

    def __init__(self, engine: Engine, kernels: Library, backends: Mapping[str, DiskBackend]) -> None:
        self._engine = engine
        self._kernels = kernels
        self._backends = backends

    async def run(self, target: Start) -> None:
        plan = LaunchPlan(
            vm=target.vm,
            paths=target.paths,
            vmlinux=self._kernels.path(target.kernel.id) / "vmlinux",
            root_disk=self._backends[target.vm.disk_backend].disk_path(target.paths.state),
            acceleration=target.acceleration,
            token=target.token,
            link=target.link,
        )
        target.vmm = await self._engine.launch(plan)

    async def undo(self, target: VmTarget) -> None:
        await self._engine.kill_all(target.paths)
        if isinstance(target, Start) and target.vmm is not None:
            await target.vmm.close()

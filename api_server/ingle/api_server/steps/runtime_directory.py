"""Make the private directory of sockets and boot secrets."""

from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.target import Start, VmTarget


class RuntimeDirectory:
    """Stale sockets of an earlier boot go first."""

    name = "runtime-directory"
    text = "making the socket directory"

    def __init__(self, files: VmFiles) -> None:
        self._files = files

    async def run(self, target: Start) -> None:
        self._files.create_runtime(target.paths)

    async def undo(self, target: VmTarget) -> None:
        await self._files.remove_runtime(target.paths)

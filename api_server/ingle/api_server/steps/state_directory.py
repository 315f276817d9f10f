"""Make the directory that holds the VM's disk and logs."""

from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.target import Start, VmTarget


class StateDirectory:
    """Everything below it goes with it."""

    name = "state-directory"
    text = "making the VM's directory"

    def __init__(self, files: VmFiles) -> None:
        self._files = files

    async def run(self, target: Start) -> None:
        self._files.create_state(target.paths)

    async def undo(self, target: VmTarget) -> None:
        await self._files.remove_state(target.paths)

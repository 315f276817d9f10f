"""The host's processes."""

from ingle.api_server.host.process import Process
from ingle.api_server.model.vm import Keeper


class HostProcesses:
    """Implements ports.processes.Processes."""

    async def ended(self, keeper: Keeper) -> None:
        process = Process.adopt(keeper.pid, keeper.start_time)
        if process is None:
            return
        try:
            await process.wait()
        finally:
            process.close()

"""The host's processes."""

from ingle.api_server.host.process import Process
from ingle.api_server.model.vm import Owner


class HostProcesses:
    """Implements ports.processes.Processes."""

    async def ended(self, owner: Owner) -> None:
        process = Process.adopt(owner.pid, owner.start_time)
        if process is None:
            return
        try:
            await process.wait()
        finally:
            process.close()

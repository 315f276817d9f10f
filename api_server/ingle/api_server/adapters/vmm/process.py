"""A live VMM, as far as it is a process like any other."""

from pathlib import Path

from ingle.api_server.adapters.vmm import logs
from ingle.api_server.host.process import Process, cpu_seconds, resident_bytes, yield_processors
from ingle.api_server.model.errors import Reason, ToolFailed
from ingle.api_server.ports.engine import VmmUsage, VmPaths


class VmmProcess:
    """Half of ports.engine.Vmm. `program`: what a person calls it."""

    program: str

    def __init__(self, process: Process, paths: VmPaths) -> None:
        self._process = process
        self._paths = paths
        self._noted: dict[Path, int] = {}

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def start_time(self) -> int:
        return self._process.start_time

    def give_way(self) -> None:
        yield_processors(self.pid)

    def signal(self, signal: int) -> None:
        self._process.signal(signal)

    def note_logs(self) -> None:
        logs.note(logs.of(self._paths), self._noted)

    def bound_logs(self) -> None:
        logs.bound(self._process, logs.of(self._paths))

    def usage(self) -> VmmUsage:
        try:
            return VmmUsage(cpu_seconds(self.pid), resident_bytes(self.pid))
        except FileNotFoundError:
            raise self.died() from None

    def died(self) -> ToolFailed:
        """That it is gone, how, and what it said last."""
        code = self._process.exit_code
        how = "ended" if code is None else f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
        said = logs.tail(self._paths)
        return ToolFailed(Reason.VMM_FAILED, f"{self.program} {how}{': ' + said if said else ''}")

"""What a VM's console and its VMM say: bounded, whoever lives on, and its end for an error."""

import errno
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ingle.api_server.host import bounded_log, log_times
from ingle.api_server.host.process import Process
from ingle.api_server.model.errors import HostProblem
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.engine import VmPaths

log = logging.getLogger(__name__)

_TAIL_BYTES = 2000
_SPARE_BYTES = 2**30


def of(paths: VmPaths) -> tuple[Path, Path]:
    """The console's and the VMM's."""
    return paths.console_log, paths.vmm_log


def behind_disks(vm: Vm) -> int:
    """An offset that no file of the VM's but a log has: its disk with what qcow2 adds, its memory."""
    return vm.settings.disk_bytes + vm.settings.disk_bytes // 8 + vm.settings.memory_bytes + _SPARE_BYTES


def begun(logs: Sequence[Path], offset: int) -> bool:
    """Whether the logs are where they can be limited."""
    note(logs, {})  # what an earlier server has not seen, before what is done here makes it look new
    try:
        sizes = {file: file.stat().st_size for file in logs if file.exists()}
        furthest = max([offset, *sizes.values()])
        for file in logs:
            _begin(file, furthest, moves=sizes.get(file, furthest) < furthest)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        log.warning("logs are bounded while a server runs, and only then: %s", error, extra={"offset": offset})
        return False
    return True


def note(logs: Sequence[Path], noted: dict[Path, int]) -> None:
    """As of Vmm.note_logs. `noted`: how long each was the last time."""
    for file in logs:
        with _without_times(file):
            noted[file] = log_times.note(file, noted.get(file, 0))


def bound(process: Process, logs: Sequence[Path]) -> None:
    """As of Vmm.bound_logs."""
    limit = process.file_limit
    if limit is not None and not process.gone:
        for file in logs:
            bounded_log.tell_loss(file, limit)
        with suppress(FileNotFoundError):
            bounded_log.level(logs)
            process.limit_files(max(limit, bounded_log.limit(logs)))
    for file in logs:
        bounded_log.trim(file)


def tail(paths: VmPaths) -> str:
    """The end of what the VMM wrote to its stderr."""
    return bounded_log.read_end(paths.vmm_log, _TAIL_BYTES).decode(errors="replace").strip()


def _begin(file: Path, offset: int, *, moves: bool) -> None:
    marks: log_times.Records = []
    if moves:
        with _without_times(file):
            marks = log_times.marks(file)
    bounded_log.begin(file, offset)
    if moves:
        with _without_times(file):
            log_times.move(file, marks)


@contextmanager
def _without_times(file: Path) -> Iterator[None]:
    """A log whose times can't be kept, since the disk is full, is a log all the same."""
    try:
        yield
    except (OSError, HostProblem) as error:
        log.warning("when the lines of a log were written is not kept: %s", error, extra={"log": str(file)})

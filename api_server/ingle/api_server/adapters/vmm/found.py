"""VMMs by what they are: when the database is lost, or their engine unknown, nobody else knows of them."""

import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from ingle.api_server.adapters.vmm import console
from ingle.api_server.host import caged, process
from ingle.api_server.host.process import Process
from ingle.api_server.model.vm import LiveVmm
from ingle.api_server.ports.engine import Ending, VmPaths


def process_name(vm_id: str) -> str:
    """The argument by which a VM's VMM is found again when nobody wrote its pid down."""
    return f"ingle-{vm_id}"


_KEEPER_SECONDS = 1.0
"""How long it may take to end behind what it keeps, before it is ended as well."""

_NAME = re.compile(process_name("([0-9a-f]{12})"))


class FoundVmms:
    """Implements ports.engine.Vmms."""

    def lives(self, vmm: LiveVmm) -> bool:
        return process.lives(vmm.pid, vmm.start_time)

    def ending(self, paths: VmPaths) -> Ending | None:
        return console.ending(paths)

    async def kill_all(self, paths: VmPaths) -> None:
        name = process_name(paths.state.name)
        # What was amid being put into namespaces has another process by then.
        while await _killed(process.find(lambda argv: name in argv), paths.state):
            pass


def vmms_below(vms: Path) -> Mapping[str, int]:
    """Pids by VM id: of our VMMs that work in a directory below `vms`, and so are of that state directory."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            argv = Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it ended while we looked, or is somebody else's
            continue
        for name in filter(None, map(_NAME.fullmatch, argv)):
            if _works_in(int(entry), vms / name[1]):
                found[name[1]] = int(entry)
    return found


async def _killed(found: Sequence[Process], state: Path) -> bool:
    """End those that are of the VM with that directory. Whether there was one."""
    vmms = [each for each in found if _works_in(each.pid, state)]
    keepers = [each for each in found if _makes_namespaces(each.pid, state)]
    try:
        for each in vmms or keepers:  # a keeper ends with its VMM, which nobody would reap otherwise
            each.signal(signal.SIGKILL)
        for each in vmms:
            await each.wait()
        for each in keepers:
            await each.wait(_KEEPER_SECONDS)
    finally:
        for each in found:
            each.close()
    return bool(vmms or keepers)


def _makes_namespaces(pid: int, state: Path) -> bool:
    """Whether it is bubblewrap, for a VMM that is to work there."""
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    if Path(argv[0]).name != caged.PROGRAM or "--chdir" not in argv:
        return False
    return Path(argv[argv.index("--chdir") + 1]).resolve() == state.resolve()


def _works_in(pid: int, state: Path) -> bool:
    """Told from who merely speaks of a VMM, such as pgrep. A VMM whose directory was removed is one still."""
    directory = Path(f"/proc/{pid}/cwd")
    try:
        return directory.samefile(state) if state.exists() else directory.readlink().parent == state.parent.resolve()
    except OSError:  # it ended, or is somebody else's
        return False

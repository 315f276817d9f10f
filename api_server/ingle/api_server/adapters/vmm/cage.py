"""What a VMM sees of the host: the programs and libraries of the system, its VM's own directory, and what the engine
says that it needs. Whoever breaks out of a guest is in there.

Made by bubblewrap of namespaces of users, mounts, processes, IPC and names, where the host lets an ordinary user have
them. There is no /proc, and of the environment nothing but where programs are."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingle.api_server.host.caged import PROGRAM
from ingle.api_server.host.tool import Tools, require, search_path
from ingle.api_server.model.errors import HostProblem, ToolFailed
from ingle.api_server.ports.engine import LaunchPlan, VmPaths

_NAMESPACES = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--as-pid-1", "--cap-drop", "ALL"),
)
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_LIBRARIES = ("/etc/ld.so.cache", "/etc/alternatives", "/nix/store", "/gnu/store")
_BESIDE_PROGRAM = ("share/qemu", "lib/qemu")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_RESOLVER = Path("/etc/resolv.conf")
_VARIABLES = ("LD_LIBRARY_PATH", "LANG", "LC_ALL")


@dataclass(frozen=True, slots=True)
class View:
    """What a VMM is to see beside programs and its VM's directory. What is not there is not seen."""

    reads: Sequence[Path] = ()
    writes: Sequence[Path] = ()
    devices: Sequence[Path] = ()
    asks_nameservers: bool = False
    """Those of the host, whichever these are at the time."""


def view_of(plan: LaunchPlan, *devices: str, writes: Iterable[Path] = ()) -> View:
    """What any VMM opens of what it is started with; `devices` are the engine's own."""
    disk, memory = plan.root_disk, plan.memory
    modules = () if plan.modules_disk is None else (plan.modules_disk,)
    return View(
        reads=(*disk.bases, *modules, *((plan.vmlinux, plan.paths.runtime) if memory is None else (memory,))),
        writes=(*(() if disk.is_block else (disk.path,)), *writes),
        devices=(*map(Path, devices), *((disk.path,) if disk.is_block else ())),
        asks_nameservers=plan.link is None,
    )


class Cage:
    """Of a server's VMMs."""

    def __init__(self, tools: Tools, *, wanted: bool = True) -> None:
        self._tools = tools
        self._wanted = wanted
        self._tried: dict[tuple[object, ...], str] = {}

    async def problem(self, program: str) -> str:
        """Why a program, by its path, can't be had in there; empty when it can. It is tried once."""
        if not self._wanted:
            return "isolate = false"
        try:
            bubblewrap = require(PROGRAM)
        except HostProblem as problem:
            return problem.message
        which = (bubblewrap, os.stat(bubblewrap).st_mtime_ns, program, os.stat(program).st_mtime_ns)
        if which not in self._tried:
            try:
                await self._tools.run([bubblewrap, *_NAMESPACES, *_system(program), "--", program, "--version"])
                self._tried[which] = ""
            except ToolFailed as error:
                self._tried[which] = error.message
        return self._tried[which]

    async def around(self, program: str, paths: VmPaths, view: View) -> tuple[str, ...]:
        """What comes before a program, by its path, for `launching.spawn`; nothing where it is not to be had."""
        if await self.problem(program):
            return ()
        state = str(paths.state)
        mounts = (
            *_bound("--ro-bind-try", (path for path in view.reads if not path.is_relative_to(paths.state))),
            *_bound("--bind", (paths.state,)),
            *_bound("--bind-try", (path for path in view.writes if not path.is_relative_to(paths.state))),
            *_bound("--dev-bind-try", view.devices),
        )
        resolver = _resolver() if view.asks_nameservers else ()
        return (require(PROGRAM), *_NAMESPACES, *_system(program), *resolver, *mounts, "--chdir", state)


def environment() -> dict[str, str]:
    """Of what runs in there."""
    return {"PATH": search_path(), **{name: os.environ[name] for name in _VARIABLES if name in os.environ}}


def _system(program: str) -> Iterator[str]:
    """Programs and libraries, `program` among them, and devices that are nobody's."""
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), name)
        elif path.is_dir():
            yield from ("--ro-bind", name, name)
    yield from _bound("--ro-bind-try", map(Path, _LIBRARIES))
    for path in dict.fromkeys((Path(program), Path(program).resolve())):
        if not any(path.is_relative_to(name) for name in _SYSTEM):
            beside = (path.parent.parent / name for name in _BESIDE_PROGRAM)
            yield from _bound("--ro-bind-try", (path, *beside))
    yield from _bound("--dev-bind", map(Path, _DEVICES))


def _resolver() -> Iterator[str]:
    """The directory of the file that names them: who changes it puts another file in its place."""
    file = _RESOLVER.resolve()
    yield from _bound("--ro-bind-try", (file.parent,))
    if file != _RESOLVER:
        yield from ("--symlink", str(file), str(_RESOLVER))


def _bound(option: str, paths: Iterable[Path]) -> Iterator[str]:
    """Where it is."""
    for path in paths:
        yield from (option, str(path), str(path))

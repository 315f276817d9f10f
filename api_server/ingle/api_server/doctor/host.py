"""What every server needs: programs, KVM, and directories to write to."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from ingle.api_server.adapters.qemu import BINARY, VERDICTS
from ingle.api_server.adapters.sqlite import check_database, recorded_vms
from ingle.api_server.adapters.vmm import Cage, known_problems, vmms_below
from ingle.api_server.config import Config, host_limits
from ingle.api_server.doctor.firecracker import firecracker_check
from ingle.api_server.host import rootlike, sockets, tool
from ingle.api_server.host.caged import PROGRAM
from ingle.api_server.host.files import free_bytes
from ingle.api_server.host.threads import in_thread
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.check import Check
from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.spec import GIB, size_text
from ingle.api_server.programs import agent_binary

_LEAST_FREE = 2 * GIB
_TOLD = 5

_KVM = Path("/dev/kvm")
_PVM = Path("/sys/module/kvm_pvm")
_EMULATED = "guests are emulated (tcg), their programs take about ten times as long"
_OTHER_HOST = "use a host whose KVM runs stock kernels; or `ingle kernel import` one that is made for this host's"
_KVM_CREATE_VM = 0xAE01  # linux/kvm.h
_ALLOW_NAMESPACES = "sudo sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000"
_LOAD_KVM = "sudo modprobe kvm_intel || sudo modprobe kvm_amd"
_KVM_FOR_USER = {False: _LOAD_KVM, True: "sudo usermod -aG kvm $USER, and log in again"}
_KVM_FOR_SYSTEM = {  # a unit sees the devices that there were when it was started
    False: f"{_LOAD_KVM}; sudo systemctl restart ingle",
    True: "sudo chgrp kvm {0}; sudo chmod 660 {0}; sudo systemctl restart ingle",
}
"""By whether it was permission that was missing."""


async def host_checks(config: Config) -> list[Check]:
    """All of them."""
    paths = config.paths
    limits = host_limits()
    return [
        Check("host", "pass", f"{limits.vcpus} vcpus, {size_text(limits.memory_bytes)} of memory"),
        *(_program(program) for program in _programs()),
        await firecracker_check(config),
        await isolation_check(config),
        _attempt("guest agent", lambda: str(agent_binary())),
        kvm_check(_KVM, paths.acceleration_verdicts, system=config.system),
        *(() if os.getuid() == 0 else (await _user_namespace(config),)),
        _directory("state directory", paths.state, _for_directory("XDG_STATE_HOME", config)),
        _directory("cache directory", paths.cache, _for_directory("XDG_CACHE_HOME", config)),
        await in_thread(_database, config),
        await in_thread(stray_check, config),
        _space(config),
        _socket_path(paths.socket),
    ]


def _programs() -> tuple[str, ...]:
    """What ingle runs: the VMM, then the makers of kernels and images. Only root keeps a file's owner by itself."""
    as_root = os.getuid() == 0
    tools = (
        "qemu-img",
        "apt-get",
        "dpkg-deb",
        "depmod",
        "mksquashfs",
        "mmdebstrap",
        "tar",
        "mke2fs",
        "e2fsck",
        "debugfs",
        "prlimit",
        "setpriv",
        "unshare",
    )
    return ("qemu-system-x86_64", *tools, *(() if as_root else ("fakeroot", "newuidmap")))


def _program(program: str) -> Check:
    return _attempt(f"program {program}", lambda: tool.require(program))


def _attempt(name: str, find: Callable[[], str]) -> Check:
    try:
        return Check(name, "pass", find())
    except IngleError as error:
        return Check(name, "fail", error.message, error.remedy)


def kvm_check(device: Path, verdicts: Path, *, system: bool) -> Check:
    """How guests run: whether this user can make a VM in the kernel, and what the first start found out by booting."""
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.close(fcntl.ioctl(descriptor, _KVM_CREATE_VM, 0))
        finally:
            os.close(descriptor)
    except OSError as error:
        denied = isinstance(error, PermissionError)
        return Check(
            "kvm",
            "warn",
            f"{_EMULATED}: {device}: {error.strerror}",
            (_KVM_FOR_SYSTEM if system else _KVM_FOR_USER)[denied].format(device),
        )
    problems = known_problems(verdicts, VERDICTS)
    if problems is None:
        return Check("kvm", "pass", f"{device} makes VMs; the first start finds out whether a guest boots in one")
    if problems:
        return Check("kvm", "warn", f"{_EMULATED}: {device} makes VMs, but {'; '.join(problems)}", _OTHER_HOST)
    return Check("kvm", "pass", f"guests run by {'pvm' if _PVM.exists() else 'kvm'}: one has booted")


def _database(config: Config) -> Check:
    path = config.paths.database
    if not path.exists():
        return Check("database", "pass", f"{path} will be created")
    return _attempt("database", lambda: check_database(path))


def stray_check(config: Config) -> Check:
    """VMs that run and that the database does not know: it was deleted, or replaced by an older one."""
    name, paths = "unknown VMs", config.paths
    known = recorded_vms(paths.database)
    strays = {} if known is None else {vm: pid for vm, pid in vmms_below(paths.vms).items() if vm not in known}
    if not strays:
        return Check(name, "pass", "every VM that runs is in the database")
    told = ", ".join(f"{vm} (pid {pid})" for vm, pid in sorted(strays.items())[:_TOLD])
    more = f" and {len(strays) - _TOLD} more" if len(strays) > _TOLD else ""
    detail = f"{told}{more}: running, and the database does not know them; their disks are below {paths.vms}"
    kill = " ".join([*(["sudo"] if config.system else []), "kill", "-KILL", *map(str, sorted(strays.values()))])
    return Check(name, "warn", detail, f"{kill}  # ends them, and leaves their disks")


async def isolation_check(config: Config) -> Check:
    """Whether VMMs are in namespaces of their own, which is tried with QEMU."""
    name = "isolation"
    if not config.defaults.isolate:
        return Check(name, "pass", "isolate = false: VMMs see what their user sees")
    try:
        problem = await Cage(Tools(config.paths.state)).problem(tool.require(BINARY))
    except IngleError as error:
        return Check(name, "warn", error.message, error.remedy)
    if not problem:
        return Check(name, "pass", "VMMs have namespaces of their own, and see their own VM alone")
    detail = f"VMMs see what this user sees: {problem}"
    remedy = "" if tool.installed(PROGRAM) else tool.install_hint(PROGRAM)
    return Check(name, "warn", detail, remedy or f"{_ALLOW_NAMESPACES}; ingle server restart")


async def _user_namespace(config: Config) -> Check:
    """What mmdebstrap runs in; without it there is a slower way, which needs a program more."""
    name = "user namespaces"
    if await rootlike.namespace(Tools(config.paths.state)) is not None:
        return Check(name, "pass", "an ordinary user can have root's powers over files")
    return _attempt(name, lambda: f"refused here; images are made with {tool.require('fakechroot')}, slower")


def _for_directory(variable: str, config: Config) -> str:
    return "sudo systemctl restart ingle" if config.system else f"set {variable} to a directory of your own"


def _directory(name: str, path: Path, remedy: str) -> Check:
    """Whether it can be written, or made."""
    nearest = _nearest(path)
    found = f"{path}" if nearest == path else f"{path} will be created"
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Check(name, "pass", found)
    why = "is no directory" if not nearest.is_dir() else "can't be written by this user"
    return Check(name, "fail", f"{path} can't be used: {nearest} {why}", remedy)


def _nearest(path: Path) -> Path:
    """The path, or the nearest of its parents that is there."""
    while not path.exists():
        path = path.parent
    return path


def _space(config: Config) -> Check:
    directory = _nearest(config.paths.state)
    free = free_bytes(directory)
    if free < _LEAST_FREE:
        return Check(
            "disk space",
            "fail",
            f"{size_text(free)} free on {directory}",
            f"free some, {size_text(_LEAST_FREE)} at least",
        )
    return Check("disk space", "pass", f"{size_text(free)} free on {directory}")


def _socket_path(path: Path) -> Check:
    length, limit = sockets.path_length(path), sockets.PATH_LIMIT
    if length > limit:
        return Check(
            "socket paths", "fail", f"{path}: {length} bytes, {limit} are allowed", "set a shorter XDG_RUNTIME_DIR"
        )
    return Check("socket paths", "pass", f"{length} of {limit} bytes")

"""What a server needs of this host, checked without changing anything."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ingle.api_server.adapters.sqlite import check_database
from ingle.api_server.agents import agent_binary
from ingle.api_server.config import Config, host_limits
from ingle.api_server.host import rootlike, sockets, tool
from ingle.api_server.host.files import free_bytes
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.spec import GIB, size_text

Status = Literal["pass", "warn", "fail"]

_LEAST_FREE = 2 * GIB


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `remedy` is what a person can type; empty when all is well."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def main(config: Config, *, as_json: bool) -> int:
    """Print the findings; 1 when one of them keeps VMs from running."""
    checks = asyncio.run(examine(config))
    if as_json:
        report = {
            "checks": [asdict(check) for check in checks],
            "settings": [asdict(setting) for setting in config.settings],
        }
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        for check in checks:
            sys.stdout.write(f"{check.status:4}  {check.name}: {check.detail}\n")
            if check.remedy:
                sys.stdout.write(f"      try: {check.remedy}\n")
    return 1 if any(check.status == "fail" for check in checks) else 0


async def examine(config: Config) -> list[Check]:
    """All findings, in the order a person would want to mend them."""
    paths = config.paths
    limits = host_limits()
    return [
        Check("host", "pass", f"{limits.vcpus} vcpus, {size_text(limits.memory_bytes)} of memory"),
        *(_program(program) for program in _programs()),
        _attempt("guest agent", lambda: str(agent_binary())),
        _kvm(),
        *(() if os.getuid() == 0 else (await _user_namespace(config),)),
        _directory("state directory", paths.state, "XDG_STATE_HOME"),
        _directory("cache directory", paths.cache, "XDG_CACHE_HOME"),
        _database(config),
        _space(config),
        _socket_path(paths.runtime / "vms" / ("0" * 12) / "vmm.sock"),
    ]


def _programs() -> tuple[str, ...]:
    """What ingle runs: the VMM, then the makers of kernels and images. Only root keeps a file's owner by itself."""
    as_root = os.getuid() == 0
    tools = (
        "qemu-img",
        "apt-get",
        "dpkg-deb",
        "depmod",
        "mmdebstrap",
        "tar",
        "mke2fs",
        "e2fsck",
        "debugfs",
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


def _kvm() -> Check:
    """Opening proves little; whether a guest boots is found out by the first start, and kept."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        remedy = "sudo usermod -aG kvm $USER, and log in again" if isinstance(error, PermissionError) else ""
        return Check("kvm", "warn", f"/dev/kvm: {error.strerror}; guests run under TCG, slower", remedy)
    return Check("kvm", "pass", "/dev/kvm opens; the first start finds out whether a guest boots with it")


def _database(config: Config) -> Check:
    path = config.paths.database
    if not path.exists():
        return Check("database", "pass", f"{path} will be created")
    return _attempt("database", lambda: check_database(path))


async def _user_namespace(config: Config) -> Check:
    """What mmdebstrap runs in; without it there is a slower way, which needs a program more."""
    name = "user namespaces"
    if await rootlike.namespace(Tools(config.paths.state)) is not None:
        return Check(name, "pass", "an ordinary user can have root's powers over files")
    return _attempt(name, lambda: f"refused here; images are made with {tool.require('fakechroot')}, slower")


def _directory(name: str, path: Path, variable: str) -> Check:
    """Whether it can be written, or made."""
    nearest = _nearest(path)
    found = f"{path}" if nearest == path else f"{path} will be created"
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Check(name, "pass", found)
    why = "is no directory" if not nearest.is_dir() else "can't be written by this user"
    return Check(name, "fail", f"{path} can't be used: {nearest} {why}", f"set {variable} to a directory of your own")


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

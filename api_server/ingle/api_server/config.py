"""Where things are and what is wanted: XDG directories, `config.toml`, and `INGLE_*` variables on top.

Every value knows where it came from, so that a doctor can show it. An unknown key is an error that names the nearest
known one.
"""

import difflib
import os
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import TypeVar

from ingle.api_server.mirrors import mirrors_of
from ingle.api_server.model.errors import HostProblem, InvalidArgument, Reason
from ingle.api_server.model.exhaustion import exhaustion
from ingle.api_server.model.ids import is_dns_label
from ingle.api_server.model.quota import NO_QUOTAS, Quotas
from ingle.api_server.model.spec import DISK_BACKENDS, GIB, MIB, Defaults, HostLimits, Overcommit, VmSpec, size_text
from ingle.api_server.model.vm import Acceleration
from ingle.api_server.quotas import quotas_of

_Choice = TypeVar("_Choice", bound=Enum)

_LONGEST_FILE = 64 * 1024
_UNITS = {"": 1, "K": 1024, "M": MIB, "G": GIB, "T": 1024 * GIB}


@dataclass(frozen=True, slots=True)
class Paths:
    """The directories of one server, and its public socket."""

    config: Path
    state: Path
    runtime: Path
    cache: Path
    socket: Path

    @staticmethod
    def of(env: Mapping[str, str]) -> "Paths":
        """The XDG directories (XDG Base Directory Specification 0.8) of this user."""
        home = Path(env.get("HOME") or Path.home())
        runtime = _runtime_root(env)
        return Paths(
            config=_absolute(env, "XDG_CONFIG_HOME", home / ".config") / "ingle" / "config.toml",
            state=_absolute(env, "XDG_STATE_HOME", home / ".local" / "state") / "ingle",
            runtime=runtime,
            cache=_absolute(env, "XDG_CACHE_HOME", home / ".cache") / "ingle",
            socket=Path(env["INGLE_SOCKET"]) if env.get("INGLE_SOCKET") else runtime / "api.sock",
        )

    @staticmethod
    def of_system() -> "Paths":
        """Those of the one server of a system install (file-hierarchy(7)). Everybody may see /run/ingle, where the
        socket is; what belongs to VMs lies a level deeper, in a directory that only the server can enter."""
        run = Path("/run/ingle")
        return Paths(
            config=Path("/etc/ingle/config.toml"),
            state=Path("/var/lib/ingle"),
            runtime=run / "server",
            cache=Path("/var/cache/ingle"),
            socket=run / "api.sock",
        )

    @property
    def database(self) -> Path:
        """The store's file."""
        return self.state / "ingle.db"

    @property
    def acceleration_verdicts(self) -> Path:
        """Whether KVM runs a kernel."""
        return self.cache / "acceleration"

    @property
    def private(self) -> Path:
        """Where the server listens for its own gate."""
        return self.state / "private"

    @property
    def lasting_socket(self) -> Path:
        """Where the server listens as well, whatever becomes of the runtime directory."""
        return self.state / "api.sock"

    @property
    def images(self) -> Path:
        """The image library."""
        return self.state / "images"

    @property
    def kernels(self) -> Path:
        """The kernel library."""
        return self.state / "kernels"

    @property
    def warm(self) -> Path:
        """Memory of guests that have booted."""
        return self.cache / "warm"

    @property
    def layers(self) -> Path:
        """Layers of images from registries."""
        return self.cache / "layers"

    @property
    def vms(self) -> Path:
        """Disks and logs of VMs."""
        return self.state / "vms"

    @property
    def snapshots(self) -> Path:
        """Disks and memory of VMs as they were, on the file system of `vms`, so that they can share blocks."""
        return self.state / "snapshots"


@dataclass(frozen=True, slots=True)
class Setting:
    """One value, as a doctor shows it."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a server is told from outside."""

    paths: Paths
    defaults: Defaults
    settings: tuple[Setting, ...]
    quotas: Quotas = NO_QUOTAS
    system: bool = False
    """Whether this is the server of the whole machine: its callers are a group, not one user."""

    mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By the host of a registry, those that are asked before it."""

    @property
    def helper(self) -> Path | None:
        """The root helper's socket, where one is installed."""
        return Path("/run/ingle-helper/helper.sock") if self.system else None

    @property
    def device_helper(self) -> Path | None:
        """The same of the one for disks."""
        return Path("/run/ingle-helper-dm/helper.sock") if self.system else None


def load(env: Mapping[str, str], *, system: bool = False, text: bytes | None = None) -> Config:
    """Read the configuration of this user's server, or of the system's; `text` is what its file would say.

    Raises InvalidArgument that says which file or variable is wrong, and how."""
    paths = Paths.of_system() if system else Paths.of(env)
    defaults = Defaults(isolate=not system)  # deploy/ingle.service lets nobody make namespaces
    origins = {item.name: "built-in" for item in fields(Defaults)}
    values = dict(_file_values(paths.config, text))
    quotas = quotas_of(values.pop("quotas", {}), str(paths.config), _size)
    mirrors = mirrors_of(values.pop("mirrors", {}), str(paths.config))
    for name, value in values.items():
        _check_key(name, paths.config)
        defaults = _with(defaults, name, value, str(paths.config))
        origins[name] = str(paths.config)
    for name in origins:
        variable = f"INGLE_{name.upper()}"
        if variable in env:
            defaults = _with(defaults, name, env[variable], variable)
            origins[name] = f"${variable}"
    settings = tuple(Setting(name, _shown(name, getattr(defaults, name)), origin) for name, origin in origins.items())
    return Config(paths, defaults, settings, quotas, system, mirrors)


def host_limits() -> HostLimits:
    """What this host has to give: processors we may use, and physical memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return HostLimits(vcpus=len(os.sched_getaffinity(0)), memory_bytes=memory)


def parse_size(text: str) -> int:
    """Bytes of `512M`, `2G`, `1.5GiB` or a plain number. Raises ValueError."""
    number = text.strip().upper().removesuffix("IB").removesuffix("B")
    unit = number[-1:] if number[-1:] in _UNITS else ""
    try:
        size = float(number.removesuffix(unit)) * _UNITS[unit]
    except ValueError:
        raise ValueError("a size is allowed, such as 512M, 2G or a number of bytes") from None
    if not size.is_integer() or size < 0:
        raise ValueError(f"{text} is not a whole number of bytes")
    return int(size)


def _one_of(kind: type[_Choice], value: object) -> _Choice:
    try:
        return kind(str(value))
    except ValueError:
        raise ValueError(f"one of {', '.join(str(choice.value) for choice in kind)} is allowed") from None


def _acceleration(value: object) -> Acceleration:
    return _one_of(Acceleration, value)


def _backend(value: object) -> str:
    if value not in ("", *DISK_BACKENDS):
        raise ValueError(f"one of {', '.join(DISK_BACKENDS)} is allowed")
    return str(value)


def _overcommit(value: object) -> Overcommit:
    return _one_of(Overcommit, value)


def _size(value: object) -> int:
    return value if isinstance(value, int) else parse_size(str(value))


def _count(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise ValueError("a whole number is allowed") from None


def _switch(value: object) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise ValueError("true or false is allowed")
    return str(value).lower() == "true"


def _domain(value: object) -> str:
    domain = str(value)
    if not domain or not all(map(is_dns_label, domain.split("."))):
        raise ValueError("DNS labels with dots between them are allowed")
    return domain


def _program(value: object) -> str:
    program = str(value)
    if not program or "\0" in program or ("/" in program and not program.startswith("/")):
        raise ValueError("the name of a program or an absolute path is allowed")
    return program


_PARSERS: Mapping[str, Callable[[object], object]] = {
    "image": str,
    "kernel": str,
    "vcpus": _count,
    "memory_bytes": _size,
    "disk_bytes": _size,
    "disk_iops": _count,
    "disk_bytes_per_second": _size,
    "net_bytes_per_second": _size,
    "acceleration": _acceleration,
    "engine": str,
    "disk_backend": _backend,
    "network": str,
    "domain": _domain,
    "disk_floor_bytes": _size,
    "disk_overcommit": _overcommit,
    "firecracker": _program,
    "isolate": _switch,
    "warm": _switch,
    "warm_cache_bytes": _size,
    "layer_cache_bytes": _size,
}

SETTINGS = tuple(_PARSERS)
"""The names of all that can be set."""


def _with(defaults: Defaults, name: str, value: object, origin: str) -> Defaults:
    try:
        changed = replace(defaults, **{name: _PARSERS[name](value)})  # type: ignore[arg-type] # parsers match by name
        VmSpec().with_defaults(changed).check(host_limits())
    except (ValueError, InvalidArgument) as error:
        remedy = f"unset {origin}" if origin.startswith("INGLE_") else f"ingle config unset {name}"
        raise InvalidArgument(f"{origin}: {name} = {value!r}: {error}", remedy) from None
    return changed


def _file_values(path: Path, text: bytes | None) -> Mapping[str, object]:
    remedy = f"correct {path}, or move it away"
    try:
        content = _bounded(_content(path) if text is None else text)
        import tomllib  # noqa: PLC0415 - most servers have no such file

        return tomllib.loads(content)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}", remedy) from None
    except RecursionError:
        raise InvalidArgument(f"{path}: it is nested too deeply", remedy) from None
    except ValueError as error:
        raise InvalidArgument(f"{path}: {error}", remedy) from None


def _content(path: Path) -> bytes:
    """What is in a file that anything may have been put in the place of, while a server runs too: a FIFO is not waited
    for. Raises OSError, ValueError."""
    with open(path, "rb", opener=_without_waiting) as file:
        if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is a FIFO")
        return file.read(_LONGEST_FILE + 1) or b""


def _bounded(text: bytes) -> str:
    if len(text) > _LONGEST_FILE:
        raise ValueError(f"it has more than the {size_text(_LONGEST_FILE)} that are allowed")
    return text.decode()


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _check_key(name: str, path: Path) -> None:
    if name not in _PARSERS:
        nearest = difflib.get_close_matches(name, _PARSERS, n=1, cutoff=0.0)[0]
        raise InvalidArgument(
            f"{path}: unknown key {name!r}; did you mean {nearest!r}?", f"known: {', '.join(_PARSERS)}"
        )


def _shown(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and name.endswith(("_bytes", "_bytes_per_second")):
        return size_text(value)
    return value.value if isinstance(value, Acceleration | Overcommit) else str(value)


def _absolute(env: Mapping[str, str], variable: str, default: Path) -> Path:
    """The specification: a relative path is invalid and is to be ignored."""
    value = Path(env.get(variable) or default)
    return value if value.is_absolute() else default


def _runtime_root(env: Mapping[str, str]) -> Path:
    """$XDG_RUNTIME_DIR/ingle; where no login manager made one, /run/user/UID or a private directory in /tmp."""
    given = Path(env.get("XDG_RUNTIME_DIR") or "")
    if given.is_absolute():
        return given / "ingle"
    login = Path(f"/run/user/{os.getuid()}")
    if login.is_dir() and login.stat().st_uid == os.getuid():
        return login / "ingle"
    return Path(tempfile.gettempdir()) / f"ingle-{os.getuid()}"


def private_directory(path: Path, variable: str = "XDG_RUNTIME_DIR") -> None:
    """Make `path`, which `variable` leads to, a directory that only we can enter, or check that it is one.

    Raises HostProblem when it can't be made, or somebody else made it: in /tmp anybody could have."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
        if ours:
            path.chmod(0o700)
    except FileExistsError:
        ours = False
    except OSError as error:
        problem = f"{error.filename or path} can't be made: {error.strerror}"
        raise exhaustion(error) or HostProblem(Reason.INTERNAL, problem, f"set {variable}") from error
    if not ours:
        raise HostProblem(
            Reason.INTERNAL, f"{path} is not a directory of uid {os.getuid()}", f"remove {path}, or set {variable}"
        )

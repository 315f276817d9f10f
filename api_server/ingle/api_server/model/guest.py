"""What can be asked of a guest, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """An agent behind a forwarded loopback port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """An agent on a unix socket of this host: its test mode."""

    path: str


@dataclass(frozen=True, slots=True)
class VsockAddress:
    """An agent behind vhost-vsock."""

    cid: int
    port: int


@dataclass(frozen=True, slots=True)
class AgentEndpoint:
    """Where an agent listens, and the 32 byte token it wants (empty on vsock and unix sockets)."""

    address: TcpAddress | UnixAddress | VsockAddress
    token: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """The answer to a ping."""

    agent_version: str
    boot_id: str
    uptime_seconds: float


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """One command. Empty `user` is root, empty `working_directory` the user's home, `timeout_seconds` None is none."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    working_directory: str = ""
    user: str = ""
    stdin: bool = False
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The command runs; `pid` is the guest's."""

    pid: int


@dataclass(frozen=True, slots=True)
class Stdout:
    """Some output."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Stderr:
    """Some error output."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Exited:
    """The last event: 0 to 255, 128 + signal when a signal ended the command."""

    exit_code: int
    signal: int = 0
    timed_out: bool = False


ExecEvent = Started | Stdout | Stderr | Exited


@dataclass(frozen=True, slots=True)
class GuestStats:
    """As the guest's kernel tells it."""

    uptime_seconds: float
    load: tuple[float, float, float]
    memory_total_bytes: int
    memory_available_bytes: int
    disk_total_bytes: int
    disk_available_bytes: int
    processes: int

"""What can be asked of a guest, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ingle.api_server.model.limits import ResourceLimit


@dataclass(frozen=True, slots=True)
class Holder:
    """The process whose an address is for as long as it lives: a VMM. Anybody may have it afterwards."""

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """An agent on a unix socket of this host: its test mode."""

    path: str


@dataclass(frozen=True, slots=True)
class SerialAddress:
    """An agent behind a virtio-serial port: `path` is the unix socket, in its VM's directory, of the VMM's chardev."""

    path: str


@dataclass(frozen=True, slots=True)
class VsockAddress:
    """An agent behind vhost-vsock."""

    cid: int
    port: int
    holder: Holder | None = None


@dataclass(frozen=True, slots=True)
class HybridVsockAddress:
    """An agent behind a vsock whose other end is a unix socket of the VMM's, in its VM's directory: `path`."""

    path: str
    port: int


AgentAddress = HybridVsockAddress | SerialAddress | UnixAddress | VsockAddress


@dataclass(frozen=True, slots=True)
class AgentEndpoint:
    """Where an agent listens, and the 32 byte token it wants; empty: none."""

    address: AgentAddress
    token: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """The answer to a ping."""

    agent_version: str
    boot_id: str
    uptime_seconds: float


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """One command. Empty `user` is root, empty `working_directory` the user's home, `timeout_seconds` None is none,
    `umask` None the agent's. With `detach` it runs on without its caller, from /dev/null to /dev/null, or the console
    with `output_to_console`. `wait_output`: its output ends when nobody has it open any more, however long the command
    is gone. `with_entrypoint`: `argv` follows the entrypoint of the VM's image; see model.workload, which completes it.
    `unnoticed`: it is nothing that a client does in the guest. `stop_signal` is what its process group gets when the
    guest powers off, 0: SIGTERM."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    working_directory: str = ""
    user: str = ""
    stdin: bool = False
    timeout_seconds: float | None = None
    detach: bool = False
    umask: int | None = None
    limits: tuple[ResourceLimit, ...] = ()
    wait_output: bool = False
    output_to_console: bool = False
    with_entrypoint: bool = False
    unnoticed: bool = False
    stop_signal: int = 0


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
    """The last event: 0 to 255, 128 + signal when a signal ended the command. `output_cut`: a process that outlived it
    still has its output open. `cpu_seconds`: what it has taken of the guest's processors,
    which makes it no other ending."""

    exit_code: int
    signal: int = 0
    timed_out: bool = False
    output_cut: bool = False
    cpu_seconds: float = field(default=0.0, compare=False)


ExecEvent = Started | Stdout | Stderr | Exited


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command from its beginning to its end; of its output the beginning, and whether there was more."""

    exited: Exited
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool
    stderr_truncated: bool


@dataclass(frozen=True, slots=True)
class InterfaceStats:
    """Of one network interface of a guest since it came up."""

    name: str
    received_bytes: int
    received_packets: int
    receive_errors: int
    sent_bytes: int
    sent_packets: int
    send_errors: int


@dataclass(frozen=True, slots=True)
class GuestStats:
    """As the guest's kernel tells it. CPU times are of all its processors together, since boot."""

    uptime_seconds: float
    load: tuple[float, float, float]
    memory_total_bytes: int
    memory_available_bytes: int
    disk_total_bytes: int
    disk_available_bytes: int
    processes: int
    cpu_total_seconds: float
    cpu_idle_seconds: float
    cpus: int
    interfaces: tuple[InterfaceStats, ...]


@dataclass(frozen=True, slots=True)
class GuestActivity:
    """What clients do in a guest: what runs now, and how long ago a byte last passed."""

    idle_seconds: float
    execs: int
    sessions: int
    attached_sessions: int
    forwards: int
    connections: int = 0
    """TCP, that others have over the network to servers in the guest, which may lie about itself."""


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """In characters, 1 to 65535 each."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class SessionProgram:
    """What runs in a session. Empty `argv` is the user's login shell, `size` None 24 rows of 80 columns;
    `with_entrypoint` as of ExecSpec.

    The session is ended when nobody was attached and nothing was said for `idle_timeout_seconds` (None: never), and
    with `end_with_viewer` as soon as its viewer has left."""

    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    working_directory: str = ""
    user: str = ""
    size: TerminalSize | None = None
    idle_timeout_seconds: float | None = None
    end_with_viewer: bool = False
    umask: int | None = None
    limits: tuple[ResourceLimit, ...] = ()
    with_entrypoint: bool = False


@dataclass(frozen=True, slots=True)
class GuestSession:
    """A command on a terminal in a guest. `idle_seconds` is since the last input, output, attaching or leaving."""

    id: str
    argv: tuple[str, ...]
    size: TerminalSize
    attached: bool
    idle_seconds: float
    age_seconds: float


@dataclass(frozen=True, slots=True)
class AttachSpec:
    """Which session to attach to. `size` None leaves the terminal's as it is; `create` is what to start when there is
    no session of that id, or when `session_id` is empty."""

    session_id: str
    steal: bool = False
    size: TerminalSize | None = None
    create: SessionProgram | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """The first event of an attachment."""

    session: GuestSession


@dataclass(frozen=True, slots=True)
class Scrollback:
    """What the session said last; first of all, and whenever the viewer was too slow for all of the output."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Output:
    """What the session says now, following what came before."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Detached:
    """The last event of an attachment that somebody else took over."""


SessionEvent = Attached | Scrollback | Output | Exited | Detached


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes of any length for a command, a terminal or a server. What its reader ignores goes nowhere, silently."""

    data: bytes


@dataclass(frozen=True, slots=True)
class InputEnd:
    """There is no more of it."""


@dataclass(frozen=True, slots=True)
class Signal:
    """For the command's process group; 1 to 64."""

    number: int


Said = Input | InputEnd | Signal | TerminalSize
"""What a caller may say in a conversation: a command takes all but a size, a session no end and no signal, a forward
input and its end."""


@dataclass(frozen=True, slots=True)
class GuestNetwork:
    """One address of an interface, with its prefix length, and perhaps a gateway of the same family. An empty `mac`
    leaves the interface the hardware address that it has."""

    interface: str
    address: str
    gateway: str
    nameservers: tuple[str, ...]
    mac: str = ""


@dataclass(frozen=True, slots=True)
class GuestIdentity:
    """What makes a guest this one and no other; None and empty leave things as they are.

    With a `token`, 32 bytes that the agent wants from then on, it is a whole identity: nobody else is answered until it
    is taken, nor when it can't be, and connections with the token of before end. `machine_id` are 32 hexadecimal
    digits; where the guest had another one, its SSH host keys are made anew as well. Each interface in `networks` gets
    the addresses given and loses all others; with `announce` the neighbours are told. `unix_nanoseconds` is what its
    clock shall show if it is off by more than `clock_tolerance_seconds`, and, with `clock_unless_set_by_guest`, nobody
    in the guest has set it. `env` takes the place of every command's variables. `ssh_keys` are by user (empty: root),
    lines of the form "TYPE BASE64 [COMMENT]"; a user's keys take the place of those given before. The root file system
    grows to `disk_bytes`, the size of its device."""

    token: bytes = field(default=b"", repr=False)
    hostname: str = ""
    machine_id: str = ""
    networks: tuple[GuestNetwork, ...] = ()
    announce: bool = False
    entropy: bytes = field(default=b"", repr=False)
    unix_nanoseconds: int | None = None
    clock_tolerance_seconds: float = 0.0
    clock_unless_set_by_guest: bool = False
    env: Mapping[str, str] | None = None
    ssh_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class IdentityTaken:
    """What came of it. `clock_offset_seconds` is how far the clock was ahead, None when nothing was said about it."""

    clock_offset_seconds: float | None = None
    clock_stepped: bool = False
    announced_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HookResult:
    """How a program of the guest's has ended that is run when it falls asleep or wakes: 0 to 255, 128 + signal when a
    signal ended it. `output` is the beginning of what it said last, on one line."""

    exit_code: int
    timed_out: bool = False
    output: str = ""

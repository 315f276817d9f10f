"""A virtual machine as ingle remembers it, and the only moves its state may make."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from ingle.api_server.model.errors import Conflict, Reason
from ingle.api_server.model.network import USER_NETWORK, PublishedPort


class VmState(Enum):
    """Where a VM is in its life."""

    CREATING = "creating"
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ERROR = "error"


class Acceleration(Enum):
    """How guest instructions run. AUTO is a wish; a running VM has KVM or TCG."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class Init(Enum):
    """What is PID 1 of a guest: ingle's agent, or what the image has, with the agent beside it."""

    AGENT = "agent"
    IMAGE = "image"


_MOVES: Mapping[VmState, frozenset[VmState]] = {
    VmState.CREATING: frozenset({VmState.STOPPED, VmState.STARTING}),
    VmState.STOPPED: frozenset({VmState.STARTING, VmState.ERROR}),
    VmState.STARTING: frozenset({VmState.RUNNING, VmState.STOPPED, VmState.ERROR}),
    VmState.RUNNING: frozenset({VmState.STOPPING, VmState.STOPPED, VmState.ERROR}),
    VmState.STOPPING: frozenset({VmState.STOPPED, VmState.RUNNING, VmState.ERROR}),
    VmState.ERROR: frozenset({VmState.STARTING, VmState.STOPPED}),
}


def check_move(name: str, old: VmState, new: VmState) -> None:
    """Raise Conflict(WRONG_STATE) unless a VM may go from `old` to `new`."""
    if new not in _MOVES[old]:
        raise Conflict(Reason.WRONG_STATE, f"VM {name!r} is {old.value}; it can't become {new.value}")


@dataclass(frozen=True, slots=True)
class Vm:
    """One VM: what was asked for, and its state. Facts about a live process are in Running."""

    id: str
    name: str
    state: VmState
    image_id: str
    image_name: str
    kernel_id: str
    kernel_name: str
    engine: str
    acceleration: Acceleration
    disk_backend: str
    vcpus: int
    memory_bytes: int
    disk_bytes: int
    created_at: datetime
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[PublishedPort, ...] = ()
    network: str = USER_NETWORK
    slot: int | None = None
    """Its place in a shared network, see model.network; None in one of its own."""
    nat: bool = True
    init: Init = Init.AGENT
    ssh_keys: tuple[str, ...] = ()
    error: str = ""
    running: "Running | None" = None


@dataclass(frozen=True, slots=True)
class Running:
    """The VMM of a VM that runs. `pid` with `start_time` (clock ticks since boot, field 22 of /proc/PID/stat) is one
    process for ever; a pid alone is not."""

    pid: int
    start_time: int
    acceleration: Acceleration
    started_at: datetime
    boot_id: str = ""
    address: str = ""
    """The guest's in a network that it shares."""

    address6: str = ""
    """The same of IPv6."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that a VM lives for, told by its start time as in Running."""

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True)
class Image:
    """A root file system: `id` is the SHA-256 of the ext4 file at images/<id>/rootfs.ext4."""

    id: str
    names: tuple[str, ...]
    size_bytes: int
    created_at: datetime
    source: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """A guest kernel at kernels/<id>/: vmlinux, and modules/ in load order. `release` is what `uname -r` will print."""

    id: str
    names: tuple[str, ...]
    release: str
    size_bytes: int
    modules: tuple[str, ...]
    created_at: datetime
    source: str

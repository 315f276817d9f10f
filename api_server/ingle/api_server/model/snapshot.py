"""A snapshot: a VM as it was at an instant, which never changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from itertools import zip_longest

from ingle.api_server.model.caller import Caller, called
from ingle.api_server.model.errors import Conflict, HostProblem, InvalidArgument, Reason
from ingle.api_server.model.ids import NAME_RULE, is_dns_label, is_vm_id
from ingle.api_server.model.spec import check_name
from ingle.api_server.model.vm import Acceleration, VmSettings

MOST_FORKS = 100
"""At a time."""

MOST_DEPTH = 8
"""Of snapshots that one is stored against, each over the next: what starts of it needs all of them."""

PLACE = "{}"
"""In a pattern, where the number goes."""


class SnapshotState(Enum):
    """How far it is."""

    CREATING = "creating"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which it is, of what VM, and what it takes to go on from it."""

    id: str
    name: str
    """Unique among its owner's. Empty: what a fork of a VM has made, or what was deleted while something rests on it;
    such a one goes with its last user."""

    owner: int
    created_at: datetime
    vm_id: str
    vm_name: str
    settings: VmSettings
    """What the VM was then."""

    memory: bool
    """Whether the guest's memory is in it."""

    state: SnapshotState = SnapshotState.CREATING
    acceleration: Acceleration = Acceleration.AUTO
    """By which the memory's guest ran."""

    memory_key: str = ""
    """As of Engine.memory_key when the memory was saved: where that is another, nothing is started of it."""

    parent_id: str = ""
    """The snapshot against which it is stored, or on which its disk rests, and without which it is of no use; empty:
    it needs none but the image."""

    depth: int = 0
    """How many it needs: its parent, that one's, and so on."""

    labels: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    """What its files take; while it is being made, at most."""

    pause_seconds: float = 0.0
    """How long the guest stood still for it."""

    digest: str = ""
    """SHA-256 of its manifest, which has those of its files."""

    used_by: tuple[str, ...] = ()
    """Names of VMs, and ids of snapshots, that rest on it."""

    @property
    def run_by(self) -> tuple[str, ...]:
        """Those of its users that are VMs: no name of one looks like an id."""
        return tuple(user for user in self.used_by if not is_vm_id(user))

    @property
    def anonymous(self) -> bool:
        """Whether it goes with its last user."""
        return not self.name

    @property
    def told(self) -> str:
        """What an error calls it."""
        return f"snapshot {self.name!r}" if self.name else f"snapshot {self.id}"

    def called_by(self, caller: Caller) -> str:
        """What that caller has to say to mean it."""
        return called(self.owner, self.name, caller) if self.name else self.id

    def check_ready(self) -> None:
        """Raise Conflict(WRONG_STATE) unless it is whole."""
        if self.state is not SnapshotState.READY:
            raise Conflict(Reason.WRONG_STATE, f"{self.told} is being made", "ingle snapshot list")

    def check_memory(self, key: str, instead: str) -> None:
        """Raise HostProblem(SNAPSHOT_INCOMPATIBLE) unless an engine with that key can go on with its memory; `instead`
        is what else can be done with it."""
        if not self.memory or self.memory_key == key:
            return
        then, now = next(
            (pair for pair in zip_longest(self.memory_key.splitlines(), key.splitlines()) if pair[0] != pair[1]),
            (self.memory_key, key),
        )
        raise HostProblem(
            Reason.SNAPSHOT_INCOMPATIBLE,
            f"{self.told}: its memory was saved with {then or 'nothing'!r} where now there is {now or 'nothing'!r}: "
            f"nothing was started",
            f"use it where it was made; or {instead}",
        )


def forked(settings: VmSettings) -> VmSettings:
    """What a fork is: the same, but for the host's ports, of which there is one each."""
    return replace(settings, ports=())


def restored(now: VmSettings, then: VmSettings) -> VmSettings:
    """What a VM is that is put back to what it was: its machine is what it was, its place among others what it is."""
    return replace(
        now,
        image_id=then.image_id,
        image_name=then.image_name,
        kernel_id=then.kernel_id,
        kernel_name=then.kernel_name,
        vcpus=then.vcpus,
        memory_bytes=then.memory_bytes,
        disk_bytes=then.disk_bytes,
        env=then.env,
        workload=then.workload,
        healthcheck=then.healthcheck,
        ssh_keys=then.ssh_keys,
    )


def fork_names(pattern: str, count: int) -> list[str]:
    """The names for so many forks; none where they are to be made up. Raises InvalidArgument."""
    if not 1 <= count <= MOST_FORKS:
        raise InvalidArgument(f"count {count}: 1 to {MOST_FORKS} is allowed", "-n 5", field="count")
    if not pattern:
        return []
    if pattern.count(PLACE) > 1 or (count > 1 and PLACE not in pattern):
        raise InvalidArgument(
            f"name {pattern[:100]!r}: it has {PLACE} once, where the number goes, and for one fork need not have it",
            "--name 'try-{}'",
            field="name",
        )
    names = [str(number + 1).join(pattern.split(PLACE)) for number in range(count)]
    for name in names:
        check_name(name)
    return names


def check_snapshot_name(name: str) -> None:
    """Raise InvalidArgument unless a snapshot can be called so."""
    if not is_dns_label(name):
        raise InvalidArgument(
            f"name {name[:100]!r}: a snapshot's name is {NAME_RULE}", "ingle snapshot create web before", field="name"
        )
    if is_vm_id(name):
        raise InvalidArgument(f"name {name!r}: 12 hex digits are an id, and can't be a name", field="name")

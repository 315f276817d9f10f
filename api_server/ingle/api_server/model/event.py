"""What has happened: told once, in its order, with the change that it tells."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum

from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.model.snapshot import Snapshot
from ingle.api_server.model.vm import Vm, VmState

LONGEST_MESSAGE = 500


class EventKind(Enum):
    """Names as in `ingle.v1.EventKind`, without its prefix."""

    SERVER_STARTED = 1
    VM_CREATED = 10
    VM_STARTED = 11
    VM_READY = 12
    VM_STOPPED = 13
    VM_FAILED = 14
    VM_DISK_FULL = 15
    VM_DISK_ROOM = 16
    VM_RENAMED = 17
    VM_UPDATED = 18
    VM_DELETED = 19
    VM_PAUSED = 20
    VM_RESUMED = 21
    VM_HIBERNATED = 22
    VM_WOKEN = 23
    VM_SLEEP_FAILED = 24
    VM_RESTORED = 26
    VM_HEALTH = 27
    IMAGE_ADDED = 30
    IMAGE_PULLED = 31
    IMAGE_REMOVED = 32
    KERNEL_ADDED = 40
    KERNEL_PULLED = 41
    KERNEL_REMOVED = 42
    SNAPSHOT_CREATED = 50
    SNAPSHOT_DELETED = 51
    SNAPSHOT_RELEASED = 52
    SNAPSHOT_FLATTENED = 53


class StopCause(Enum):
    """Why a VM has stopped. Names as in `ingle.v1.StopCause`, without its prefix."""

    ASKED = 1
    KILLED = 2
    GUEST_POWERED_OFF = 3
    GUEST_REBOOTED = 4
    VMM_DIED = 5
    START_FAILED = 6


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happens now; the store makes an Event of it."""

    kind: EventKind
    resource: Resource | None = None
    """To what it happens; None: to the server itself."""

    name: str = ""
    owner: int | None = None
    """Whose it is, a uid; None for what all users share."""

    labels: Mapping[str, str] = field(default_factory=dict)
    op_id: str = ""
    cause: StopCause | None = None
    message: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened. A later one has a larger cursor, and none has the same."""

    cursor: int
    time: datetime
    what: Happening


def of_vm(
    kind: EventKind,
    vm: Vm,
    op_id: str = "",
    *,
    cause: StopCause | None = None,
    message: str = "",
    **attributes: str,
) -> Happening:
    """It happens to a VM, as that is now."""
    return Happening(
        kind=kind,
        resource=Resource(ResourceKind.VM, vm.id),
        name=vm.name,
        owner=vm.owner,
        labels=vm.settings.labels,
        op_id=op_id,
        cause=cause,
        message=message[:LONGEST_MESSAGE],
        attributes=attributes,
    )


def of_snapshot(kind: EventKind, snapshot: Snapshot, op_id: str = "") -> Happening:
    """It happens to a snapshot."""
    memory = "true" if snapshot.memory else "false"
    return Happening(
        kind=kind,
        resource=Resource(ResourceKind.SNAPSHOT, snapshot.id),
        name=snapshot.name,
        owner=snapshot.owner,
        labels=snapshot.labels,
        op_id=op_id,
        attributes={"vm": snapshot.vm_name, "memory": memory} if kind is EventKind.SNAPSHOT_CREATED else {},
    )


def of_move(before: Vm, after: Vm, cause: StopCause | None, op_id: str) -> Iterator[Happening]:
    """What a VM's change of state tells. `cause`: why, when it stops."""
    if before.state is VmState.CREATING:
        settings = after.settings
        yield of_vm(
            EventKind.VM_CREATED,
            after,
            op_id,
            image=settings.image_name,
            kernel=settings.kernel_name,
            engine=settings.engine,
        )
    yield from _of_sleep(before, after, op_id)
    if after.state is VmState.STARTING and before.state is not VmState.HIBERNATED:
        yield of_vm(EventKind.VM_STARTED, after, op_id)
    if before.state is VmState.STARTING and after.state is VmState.RUNNING:
        yield of_vm(EventKind.VM_READY, after, op_id, acceleration=_acceleration(after))
    if (_had_vmm(before.state) or before.state is VmState.HIBERNATED) and after.state.idle:
        because = cause or (StopCause.VMM_DIED if after.state is VmState.ERROR else StopCause.ASKED)
        yield of_vm(EventKind.VM_STOPPED, after, op_id, cause=because, message=after.error)
    if after.state is VmState.ERROR and before.state is not VmState.ERROR:
        yield of_vm(EventKind.VM_FAILED, after, op_id, message=after.error)


def of_change(before: Vm, after: Vm, op_id: str) -> Iterator[Happening]:
    """What a change of name or settings tells."""
    if before.name != after.name:
        yield of_vm(EventKind.VM_RENAMED, after, op_id, old_name=before.name)
    changed = [
        each.name
        for each in fields(before.settings)
        if getattr(before.settings, each.name) != getattr(after.settings, each.name)
    ]
    if changed:
        yield of_vm(EventKind.VM_UPDATED, after, op_id, changed=",".join(changed))


def of_deletion(vm: Vm, op_id: str) -> Iterator[Happening]:
    """What a deletion tells: one that was never made whole has never been told of either."""
    if vm.state is VmState.CREATING:
        return
    if _had_vmm(vm.state):
        yield of_vm(EventKind.VM_STOPPED, vm, op_id, cause=StopCause.KILLED)
    yield of_vm(EventKind.VM_DELETED, vm, op_id)


def _of_sleep(before: Vm, after: Vm, op_id: str) -> Iterator[Happening]:
    match before.state, after.state:
        case VmState.RUNNING, VmState.PAUSED:
            yield of_vm(EventKind.VM_PAUSED, after, op_id)
        case VmState.PAUSED, VmState.RUNNING:
            yield of_vm(EventKind.VM_RESUMED, after, op_id, asleep_seconds=_asleep_seconds(before, after))
        case VmState.PAUSED, VmState.HIBERNATED:
            yield of_vm(EventKind.VM_HIBERNATED, after, op_id)
        case VmState.STARTING, VmState.PAUSED:
            yield of_vm(EventKind.VM_WOKEN, after, op_id, acceleration=_acceleration(after))


def _acceleration(vm: Vm) -> str:
    return "" if vm.vmm is None else vm.vmm.acceleration.value


def _asleep_seconds(before: Vm, after: Vm) -> str:
    since = before.asleep_since or after.state_since
    return f"{max(0.0, (after.state_since - since).total_seconds()):.3f}"


def _had_vmm(state: VmState) -> bool:
    return state.alive or state is VmState.STARTING

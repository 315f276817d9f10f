"""The verbs as data: what each makes of a state. No I/O, so that a request is refused before anything changes.

Each `edit` is idempotent, and raises Refused or InUse when the state forbids it. `named` are the resources that must be
there afterwards even when nothing changed: the kernel is looked at, not only the journal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from ingle.host_helper.errors import InUse, Refused
from ingle.host_helper.names import LOOSE, network_of
from ingle.host_helper.policy import Policy
from ingle.host_helper.state import Device, Limit, Nat, Network, Published, Resource, State, Tap


class VmFile(Enum):
    """Files of a VM's directory that may get another owner; the value is the name, as the API server has it."""

    RAW_DISK = "disk.raw"
    QCOW2_DISK = "disk.qcow2"
    COW = "disk.cow"
    CONSOLE_LOG = "console.log"


@dataclass(frozen=True, slots=True)
class EnsureNetwork:
    """There is the network. Its DNS stays where it is, unless a port is given."""

    number: int
    dns_port: int = 0

    def edit(self, state: State, policy: Policy) -> State:
        present = state.network(self.number) or Network(self.number)
        return state.plus(replace(present, dns_port=self.dns_port) if self.dns_port else present)

    def named(self, state: State) -> Sequence[Resource]:
        present = state.network(self.number)
        return [] if present is None else [present]


@dataclass(frozen=True, slots=True)
class DeleteNetwork:
    """There is no such network."""

    number: int

    def edit(self, state: State, policy: Policy) -> State:
        for tap in state.all(Tap):
            if network_of(tap.slot) == self.number:
                raise InUse(f"VM {tap.vm} is in network {self.number}", "delete its tap first")
        return state.minus([Network(self.number)])

    def named(self, state: State) -> Sequence[Resource]:
        return []


@dataclass(frozen=True, slots=True)
class CreateTap:
    """The VM has the slot: in a network that is there, or one that leads nowhere."""

    vm: str
    slot: int

    def edit(self, state: State, policy: Policy) -> State:
        tap = Tap(self.slot, self.vm)
        if tap in state:
            return state
        if (other := state.tap(self.slot)) is not None:
            raise InUse(f"slot {self.slot} is VM {other.vm}'s", "take another slot")
        if self.slot not in LOOSE and state.network(network_of(self.slot)) is None:
            raise Refused(f"there is no network {network_of(self.slot)}", "EnsureNetwork comes first")
        if len(state.all(Tap)) >= policy.max_taps:
            raise InUse(f"there are {policy.max_taps} taps, as many as max_taps in the policy allows")
        return state.plus(tap)

    def named(self, state: State) -> Sequence[Resource]:
        return [Tap(self.slot, self.vm)]


@dataclass(frozen=True, slots=True)
class DeleteTap:
    """The VM has the slot no more."""

    vm: str
    slot: int

    def edit(self, state: State, policy: Policy) -> State:
        if (tap := state.tap(self.slot)) is None:
            return state
        if tap.vm != self.vm:
            raise Refused(f"slot {self.slot} is VM {tap.vm}'s, not {self.vm}'s")
        ports = [port for port in state.all(Published) if port.slot == self.slot]
        return state.minus([tap, Nat(self.slot), Limit(self.slot, 0), *ports])

    def named(self, state: State) -> Sequence[Resource]:
        return []


@dataclass(frozen=True, slots=True)
class SetNat:
    """The VM may reach what the host reaches, or not."""

    vm: str
    slot: int
    enabled: bool

    def edit(self, state: State, policy: Policy) -> State:
        if not self.enabled and state.tap(self.slot) is None:
            return state
        _own(state, self.vm, self.slot)
        return state.plus(Nat(self.slot)) if self.enabled else state.minus([Nat(self.slot)])

    def named(self, state: State) -> Sequence[Resource]:
        return []


@dataclass(frozen=True, slots=True)
class LimitTap:
    """The VM may send so much in a second, and receive; 0: there is no limit."""

    vm: str
    slot: int
    bytes_per_second: int

    def edit(self, state: State, policy: Policy) -> State:
        if not self.bytes_per_second and state.tap(self.slot) is None:
            return state
        _own(state, self.vm, self.slot)
        limit = Limit(self.slot, self.bytes_per_second)
        return state.plus(limit) if self.bytes_per_second else state.minus([limit])

    def named(self, state: State) -> Sequence[Resource]:
        return []


@dataclass(frozen=True, slots=True)
class PublishPort:
    """A port of the host is the VM's."""

    vm: str
    port: Published

    def edit(self, state: State, policy: Policy) -> State:
        _own(state, self.vm, self.port.slot)
        for present in state.all(Published):
            if not present.meets(self.port) or present == self.port:
                continue
            # Which one is not said: it may be another user's.
            told = f"port {self.port.host_port}/{self.port.protocol.value} is published for another VM"
            raise InUse(told, "take another port; ingle vm list --format '{{.name}} {{.ports}}' tells of yours")
        return state.plus(self.port)

    def named(self, state: State) -> Sequence[Resource]:
        return []


@dataclass(frozen=True, slots=True)
class UnpublishPort:
    """A port of the host is not this one of the VM."""

    vm: str
    port: Published

    def edit(self, state: State, policy: Policy) -> State:
        if self.port not in state:
            return state
        _own(state, self.vm, self.port.slot)
        return state.minus([self.port])

    def named(self, state: State) -> Sequence[Resource]:
        return []


@dataclass(frozen=True, slots=True)
class CreateDevice:
    """The VM has a snapshot of the image."""

    device: Device

    def edit(self, state: State, policy: Policy) -> State:
        present = state.device(self.device.vm)
        if present == self.device:
            return state
        if present is not None:
            raise InUse(f"VM {present.vm} has a device of {present.size} bytes over image {present.image}")
        if len(state.all(Device)) >= policy.max_devices:
            raise InUse(f"there are {policy.max_devices} devices, as many as max_devices in the policy allows")
        return state.plus(self.device)

    def named(self, state: State) -> Sequence[Resource]:
        return [self.device]


@dataclass(frozen=True, slots=True)
class RemoveDevice:
    """The VM has no device."""

    vm: str

    def edit(self, state: State, policy: Policy) -> State:
        device = state.device(self.vm)
        return state if device is None else state.minus([device])

    def named(self, state: State) -> Sequence[Resource]:
        return []


@dataclass(frozen=True, slots=True)
class ResizeDevice:
    """The VM's device has this many bytes."""

    vm: str
    size: int

    def edit(self, state: State, policy: Policy) -> State:
        device = state.device(self.vm)
        if device is None:
            raise Refused(f"VM {self.vm} has no device", "CreateSnapshotDevice comes first")
        if self.size < device.size:
            raise Refused(f"the device of VM {self.vm} has {device.size} bytes; devices never shrink")
        return state.plus(Device(device.vm, device.image, self.size))

    def named(self, state: State) -> Sequence[Resource]:
        device = state.device(self.vm)
        return [] if device is None else [device]


@dataclass(frozen=True, slots=True)
class Chown:
    """A file of the VM belongs to `uid`. Changes a file, not the state."""

    vm: str
    file: VmFile
    uid: int

    def edit(self, state: State, policy: Policy) -> State:
        return state

    def named(self, state: State) -> Sequence[Resource]:
        return []


Verb: TypeAlias = (
    EnsureNetwork
    | DeleteNetwork
    | CreateTap
    | DeleteTap
    | SetNat
    | LimitTap
    | PublishPort
    | UnpublishPort
    | CreateDevice
    | RemoveDevice
    | ResizeDevice
    | Chown
)

DEVICE_VERBS = (CreateDevice, RemoveDevice, ResizeDevice)


def _own(state: State, vm: str, slot: int) -> None:
    """Raise Refused unless the slot is the VM's."""
    tap = state.tap(slot)
    if tap is None:
        raise Refused(f"slot {slot} is nobody's", "CreateTap comes first")
    if tap.vm != vm:
        raise Refused(f"slot {slot} is VM {tap.vm}'s, not {vm}'s")

"""The one validator: every number and id of every request passes here on its way to a verb or a state.

Raises InvalidRequest that says what is wrong and what is allowed, before anything is done.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper.errors import InvalidRequest
from ingle.host_helper.names import HOSTS, LOOSE, Addresses, network_of
from ingle.host_helper.policy import Policy
from ingle.host_helper.state import Device, Limit, Nat, Network, Protocol, Published, Resource, State, Tap
from ingle.host_helper.verbs import (
    DEVICE_VERBS,
    Chown,
    CreateDevice,
    CreateTap,
    DeleteNetwork,
    DeleteTap,
    EnsureNetwork,
    LimitTap,
    PublishPort,
    RemoveDevice,
    ResizeDevice,
    SetNat,
    UnpublishPort,
    Verb,
    VmFile,
)

MOST_CHANGES = 64
"""In one Apply."""

LEAST_RATE, MOST_RATE = 1 << 17, 1 << 49
"""Bytes a second. With less, no segment as large as TCP's become in a tap would pass."""

_VM_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_IMAGE_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_BLOCK = 4096

_PROTOCOLS = {pb.PROTOCOL_TCP: Protocol.TCP, pb.PROTOCOL_UDP: Protocol.UDP}
_FILES = {
    pb.VM_FILE_RAW_DISK: VmFile.RAW_DISK,
    pb.VM_FILE_QCOW2_DISK: VmFile.QCOW2_DISK,
    pb.VM_FILE_COW: VmFile.COW,
    pb.VM_FILE_CONSOLE_LOG: VmFile.CONSOLE_LOG,
}


class Validator:
    """What is allowed depends on the policy, and on what this process serves."""

    def __init__(self, policy: Policy, part: "pb.Part.ValueType") -> None:
        self._policy = policy
        self._part = part
        self._networks = Addresses.of(policy).networks

    def verbs(self, request: pb.ApplyRequest) -> list[Verb]:
        """The changes of an Apply."""
        if not 1 <= len(request.changes) <= MOST_CHANGES:
            raise InvalidRequest(f"{len(request.changes)} changes; 1 to {MOST_CHANGES} are allowed")
        return [self.verb(change) for change in request.changes]

    def verb(self, change: pb.Change) -> Verb:
        """One change."""
        verb = self._verb(change)
        self._check_part(isinstance(verb, DEVICE_VERBS))
        return verb

    def wanted(self, request: pb.ReconcileRequest) -> State:
        """What there is to be, complete and consistent."""
        self._check_part(len(request.devices) > 0, bool(request.networks or request.taps or request.ports))
        resources: list[Resource] = [Network(self._network(number)) for number in request.networks]
        taps: dict[int, str] = {}
        for tap in request.taps:
            slot = self._tap(tap.slot)
            if slot not in LOOSE and network_of(slot) not in request.networks:
                raise InvalidRequest(f"slot {slot} without network {network_of(slot)}")
            if slot in LOOSE and tap.nat:
                raise InvalidRequest(f"slot {slot} leads nowhere, and so has no NAT")
            taps[slot] = self._vm(tap.vm_id)
            resources += [Tap(slot, tap.vm_id), Nat(slot)] if tap.nat else [Tap(slot, tap.vm_id)]
            resources += [Limit(slot, _rate(tap.bytes_per_second))] if tap.bytes_per_second else []
        for message in request.ports:
            vm, port = self._port(message)
            if taps.get(port.slot) != vm:
                raise InvalidRequest(f"{port}: that slot is not wanted for VM {vm}")
            resources.append(port)
        resources += [self._device(device) for device in request.devices]
        self._check_unique(resources)
        for kind, most, key in (
            (Tap, self._policy.max_taps, "max_taps"),
            (Device, self._policy.max_devices, "max_devices"),
        ):
            if sum(isinstance(resource, kind) for resource in resources) > most:
                raise InvalidRequest(f"more than {most}, which {key} in the policy allows")
        return State(resources)

    def _verb(self, change: pb.Change) -> Verb:  # noqa: PLR0911, PLR0912 # one line a verb
        kind = change.WhichOneof("change")
        match kind:
            case "ensure_network":
                network = change.ensure_network
                return EnsureNetwork(self._network(network.network), _dns_port(network.dns_port))
            case "delete_network":
                return DeleteNetwork(self._network(change.delete_network.network))
            case "create_tap":
                return CreateTap(self._vm(change.create_tap.vm_id), self._tap(change.create_tap.slot))
            case "delete_tap":
                return DeleteTap(self._vm(change.delete_tap.vm_id), self._tap(change.delete_tap.slot))
            case "set_nat":
                nat = change.set_nat
                return SetNat(self._vm(nat.vm_id), self._slot(nat.slot), nat.enabled)
            case "limit_tap":
                limit = change.limit_tap
                return LimitTap(self._vm(limit.vm_id), self._slot(limit.slot), _rate(limit.bytes_per_second))
            case "publish_port":
                return PublishPort(*self._port(change.publish_port.port))
            case "unpublish_port":
                return UnpublishPort(*self._port(change.unpublish_port.port))
            case "chown_vm_file":
                chown = change.chown_vm_file
                return Chown(self._vm(chown.vm_id), _file(chown.file), self._owner(chown.uid))
            case "create_snapshot_device":
                return CreateDevice(self._device(change.create_snapshot_device))
            case "remove_snapshot_device":
                return RemoveDevice(self._vm(change.remove_snapshot_device.vm_id))
            case "resize_snapshot_device":
                resize = change.resize_snapshot_device
                return ResizeDevice(self._vm(resize.vm_id), self._size(resize.size_bytes))
            case None:
                raise InvalidRequest("a change without a verb, or with one that this helper doesn't know")

    def _check_part(self, devices: bool, network: bool | None = None) -> None:
        """Devices are another process's than the rest."""
        served = self._part == pb.PART_DEVICES
        if devices and not served:
            raise InvalidRequest("this helper serves the network", "ask the one for devices")
        if served and (not devices if network is None else network):
            raise InvalidRequest("this helper serves devices", "ask the one for the network")

    @staticmethod
    def _check_unique(resources: Sequence[Resource]) -> None:
        seen: set[tuple[str, ...]] = set()
        for resource in resources:
            if resource.key in seen:
                raise InvalidRequest(f"{resource}: wanted twice")
            seen.add(resource.key)
        everywhere = {
            resource.key for resource in resources if isinstance(resource, Published) and not resource.address
        }
        for resource in resources:
            if isinstance(resource, Published) and resource.address and replace(resource, address="").key in everywhere:
                raise InvalidRequest(f"{resource}: that port of the host is wanted twice")

    @staticmethod
    def _vm(text: str) -> str:
        if _VM_ID.fullmatch(text) is None:
            raise InvalidRequest(f"VM id {_shown(text)}; 12 of 0-9 and a-f are allowed")
        return text

    def _network(self, number: int) -> int:
        if number >= self._networks:
            raise InvalidRequest(f"network {number}; 0 to {self._networks - 1} are allowed")
        return number

    def _slot(self, slot: int) -> int:
        if network_of(slot) >= self._networks or slot & 0xFF not in HOSTS:
            raise InvalidRequest(
                f"slot {slot}; network * 256 + host is allowed, network 0 to {self._networks - 1}, "
                f"host {HOSTS.start} to {HOSTS.stop - 1}"
            )
        return slot

    def _tap(self, slot: int) -> int:
        """Of a tap, which may also lead nowhere."""
        return slot if slot in LOOSE else self._slot(slot)

    def _port(self, message: pb.PublishedPort) -> tuple[str, Published]:
        vm, slot = self._vm(message.vm_id), self._slot(message.slot)
        protocol = _PROTOCOLS.get(message.protocol)
        if protocol is None:
            raise InvalidRequest(f"protocol {message.protocol}; TCP and UDP are allowed")
        if message.host_port not in self._policy.publish_ports:
            raise InvalidRequest(
                f"port {message.host_port} of the host; the policy allows {self._policy.publish_ports}",
                "publish_ports in the policy has what is allowed",
            )
        if not 1 <= message.vm_port <= 65535:
            raise InvalidRequest(f"port {message.vm_port} of the VM; 1 to 65535 are allowed")
        return vm, Published(protocol, message.host_port, slot, message.vm_port, _address(message.address))

    def _owner(self, uid: int) -> int:
        if uid != self._policy.uid and uid not in self._policy.vm_uids:
            raise InvalidRequest(f"uid {uid}; {self._policy.uid} and {self._policy.vm_uids} are allowed")
        return uid

    def _device(self, message: "pb.CreateSnapshotDeviceRequest | pb.WantedDevice") -> Device:
        vm = self._vm(message.vm_id)
        if _IMAGE_ID.fullmatch(message.image_id) is None:
            raise InvalidRequest(f"image id {_shown(message.image_id)}; 64 of 0-9 and a-f are allowed")
        return Device(vm, message.image_id, self._size(message.size_bytes))

    def _size(self, size: int) -> int:
        if size == 0 or size % _BLOCK or size > self._policy.max_device_bytes:
            raise InvalidRequest(
                f"{size} bytes; multiples of {_BLOCK} up to {self._policy.max_device_bytes} are allowed"
            )
        return size


def _rate(bytes_per_second: int) -> int:
    if bytes_per_second != 0 and not LEAST_RATE <= bytes_per_second <= MOST_RATE:
        raise InvalidRequest(
            f"{bytes_per_second} bytes a second; {LEAST_RATE} to {MOST_RATE} are allowed, or 0 for none"
        )
    return bytes_per_second


def _dns_port(number: int) -> int:
    if number != 0 and not 1024 <= number <= 65535:
        raise InvalidRequest(f"port {number} for DNS; 1024 to 65535 are allowed, and 0 for where it is")
    return number


def _address(text: str) -> str:
    """Of the host, and one at which something can be published."""
    if not text:
        return ""
    try:
        address = ip_address(text)
    except ValueError:
        address = None
    if (
        address is None
        or str(address) != text
        or address.is_loopback
        or address.is_unspecified
        or address.is_multicast
        or "%" in text
    ):
        raise InvalidRequest(
            f"address {_shown(text)}; one of the host's but loopback is allowed, in its shortest form, or none for all"
        )
    return text


def _file(number: "pb.VmFile.ValueType") -> VmFile:
    if number not in _FILES:
        raise InvalidRequest(f"file {number}; {', '.join(map(pb.VmFile.Name, _FILES))} are allowed")
    return _FILES[number]


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= 80 else f"{text[:80]!a} and {len(text) - 80} more characters"

"""The validator: whatever is not an id, a slot or a number in its range is refused, in every verb."""

import re

import pytest

from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper.errors import InvalidRequest
from ingle.host_helper.names import LOOSE
from ingle.host_helper.policy import parse
from ingle.host_helper.requests import Validator
from ingle.host_helper.state import Device, Limit, Nat, Network, Protocol, Published, State, Tap

VM, IMAGE = "0123456789ab", "f" * 64
POLICY = parse({"user": 4242, "ipv4_pool": "10.9.0.0/22", "vm_uids": [5000, 5009], "max_taps": 3}, "here")
NETWORK = Validator(POLICY, pb.PART_NETWORK)
DEVICES = Validator(POLICY, pb.PART_DEVICES)

BAD_IDS = [
    "", "0123456789a", "0123456789abc", "0123456789AB", "../../../etc", "/etc/passwd",
    "0123456789a\n", "0123456789ab\n",
    "0123456789a\0", "\u0660123456789a", "\uff10123456789ab", "vm-123456789", "x" * 100_000, "ingt1; drop x", "*",
]  # fmt: skip
BAD_SLOTS = [0, 1, 255, 256, 257, 511, 4 * 256 + 2, 65536, 2**31, 2**32 - 1]
BAD_PORTS = [0, 1, 1023, 65536, 2**32 - 1]
BAD_SIZES = [0, 1, 4095, 4097, (4 << 40) + 4096, 2**63, 2**64 - 4096]


def refused(change: pb.Change) -> None:
    for validator in (NETWORK, DEVICES):
        with pytest.raises(InvalidRequest):
            validator.verb(change)


@pytest.mark.parametrize("vm", BAD_IDS, ids=lambda text: ascii(text[:20]))
def test_what_is_no_vm_id_is_refused_in_every_verb(vm: str) -> None:
    port = pb.PublishedPort(vm_id=vm, slot=2, protocol=pb.PROTOCOL_TCP, host_port=8080, vm_port=80)
    changes = (
        pb.Change(create_tap=pb.CreateTapRequest(vm_id=vm, slot=2)),
        pb.Change(delete_tap=pb.DeleteTapRequest(vm_id=vm, slot=2)),
        pb.Change(set_nat=pb.SetNatRequest(vm_id=vm, slot=2)),
        pb.Change(limit_tap=pb.LimitTapRequest(vm_id=vm, slot=2)),
        pb.Change(publish_port=pb.PublishPortRequest(port=port)),
        pb.Change(unpublish_port=pb.UnpublishPortRequest(port=port)),
        pb.Change(chown_vm_file=pb.ChownVmFileRequest(vm_id=vm, file=pb.VM_FILE_COW, uid=5000)),
        pb.Change(create_snapshot_device=pb.CreateSnapshotDeviceRequest(vm_id=vm, image_id=IMAGE, size_bytes=4096)),
        pb.Change(remove_snapshot_device=pb.RemoveSnapshotDeviceRequest(vm_id=vm)),
        pb.Change(resize_snapshot_device=pb.ResizeSnapshotDeviceRequest(vm_id=vm, size_bytes=4096)),
    )
    for change in changes:
        refused(change)
    for wanted in (
        pb.ReconcileRequest(networks=[0], taps=[pb.WantedTap(vm_id=vm, slot=2)]),
        pb.ReconcileRequest(devices=[pb.WantedDevice(vm_id=vm, image_id=IMAGE, size_bytes=4096)]),
    ):
        for validator in (NETWORK, DEVICES):
            with pytest.raises(InvalidRequest):
                validator.wanted(wanted)


def test_a_message_about_a_huge_id_is_short_and_one_line() -> None:
    with pytest.raises(InvalidRequest) as raised:
        NETWORK.verb(pb.Change(create_tap=pb.CreateTapRequest(vm_id="\n" * 100_000, slot=2)))
    assert len(raised.value.message) < 300
    assert "\n" not in raised.value.message


def test_a_tap_may_lead_nowhere_but_has_neither_nat_nor_ports_then() -> None:
    for slot in (LOOSE[0], LOOSE[-1]):
        NETWORK.verb(pb.Change(create_tap=pb.CreateTapRequest(vm_id=VM, slot=slot)))
        NETWORK.verb(pb.Change(delete_tap=pb.DeleteTapRequest(vm_id=VM, slot=slot)))
        wanted = pb.WantedTap(vm_id=VM, slot=slot)
        assert NETWORK.wanted(pb.ReconcileRequest(taps=[wanted])) == State([Tap(slot, VM)])
        port = pb.PublishedPort(vm_id=VM, slot=slot, protocol=pb.PROTOCOL_TCP, host_port=8080, vm_port=80)
        refused(pb.Change(set_nat=pb.SetNatRequest(vm_id=VM, slot=slot)))
        refused(pb.Change(publish_port=pb.PublishPortRequest(port=port)))
        wanted.nat = True
        with pytest.raises(InvalidRequest):
            NETWORK.wanted(pb.ReconcileRequest(taps=[wanted]))


@pytest.mark.parametrize("slot", BAD_SLOTS)
def test_a_slot_out_of_range_is_refused_in_every_verb(slot: int) -> None:
    port = pb.PublishedPort(vm_id=VM, slot=slot, protocol=pb.PROTOCOL_TCP, host_port=8080, vm_port=80)
    for change in (
        pb.Change(create_tap=pb.CreateTapRequest(vm_id=VM, slot=slot)),
        pb.Change(delete_tap=pb.DeleteTapRequest(vm_id=VM, slot=slot)),
        pb.Change(set_nat=pb.SetNatRequest(vm_id=VM, slot=slot)),
        pb.Change(limit_tap=pb.LimitTapRequest(vm_id=VM, slot=slot)),
        pb.Change(publish_port=pb.PublishPortRequest(port=port)),
        pb.Change(unpublish_port=pb.UnpublishPortRequest(port=port)),
    ):
        refused(change)
    with pytest.raises(InvalidRequest):
        NETWORK.wanted(pb.ReconcileRequest(networks=range(4), taps=[pb.WantedTap(vm_id=VM, slot=slot)]))


@pytest.mark.parametrize("number", [4, 256, 2**32 - 1])
def test_a_network_out_of_the_pool_is_refused(number: int) -> None:
    refused(pb.Change(ensure_network=pb.EnsureNetworkRequest(network=number)))
    refused(pb.Change(delete_network=pb.DeleteNetworkRequest(network=number)))
    with pytest.raises(InvalidRequest, match="0 to 3 are allowed"):
        NETWORK.wanted(pb.ReconcileRequest(networks=[number]))


@pytest.mark.parametrize("port", [1, 53, 1023, 65536, 2**32 - 1])
def test_dns_is_led_to_no_port_that_takes_rights(port: int) -> None:
    refused(pb.Change(ensure_network=pb.EnsureNetworkRequest(network=0, dns_port=port)))


@pytest.mark.parametrize("host_port", BAD_PORTS)
def test_a_port_that_the_policy_does_not_allow_is_refused(host_port: int) -> None:
    port = pb.PublishedPort(vm_id=VM, slot=2, protocol=pb.PROTOCOL_TCP, host_port=host_port, vm_port=80)
    refused(pb.Change(publish_port=pb.PublishPortRequest(port=port)))
    for vm_port, protocol in (0, pb.PROTOCOL_TCP), (65536, pb.PROTOCOL_TCP), (80, pb.PROTOCOL_UNSPECIFIED):
        port = pb.PublishedPort(vm_id=VM, slot=2, protocol=protocol, host_port=8080, vm_port=vm_port)
        refused(pb.Change(publish_port=pb.PublishPortRequest(port=port)))


@pytest.mark.parametrize(
    "address",
    ["localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "2001:DB8::1", "fe80::1%eth0", '1 } x "', "1.2.3"],
)
def test_what_is_no_address_to_publish_at_is_refused(address: str) -> None:
    for taken in ("192.0.2.1", "2001:db8::1", ""):
        port = pb.PublishedPort(vm_id=VM, slot=2, protocol=pb.PROTOCOL_TCP, host_port=8080, vm_port=80, address=taken)
        NETWORK.verb(pb.Change(publish_port=pb.PublishPortRequest(port=port)))
    port.address = address
    refused(pb.Change(publish_port=pb.PublishPortRequest(port=port)))


@pytest.mark.parametrize("uid", [0, 1, 4241, 4999, 5010, 2**31, 2**32 - 1])
def test_no_uid_but_the_policys_gets_a_file(uid: int) -> None:
    refused(pb.Change(chown_vm_file=pb.ChownVmFileRequest(vm_id=VM, file=pb.VM_FILE_COW, uid=uid)))


@pytest.mark.parametrize("number", [0, 5, -1, 2**31 - 1])
def test_no_file_but_those_of_the_contract(number: int) -> None:
    request = pb.ChownVmFileRequest(vm_id=VM, file=number, uid=5000)  # type: ignore[arg-type]
    refused(pb.Change(chown_vm_file=request))


@pytest.mark.parametrize("size", BAD_SIZES)
def test_a_size_out_of_range_is_refused(size: int) -> None:
    request = pb.CreateSnapshotDeviceRequest(vm_id=VM, image_id=IMAGE, size_bytes=size)
    refused(pb.Change(create_snapshot_device=request))
    refused(pb.Change(resize_snapshot_device=pb.ResizeSnapshotDeviceRequest(vm_id=VM, size_bytes=size)))


@pytest.mark.parametrize("image", ["", "f" * 63, "f" * 65, "F" * 64, "../" * 21 + "x", "f" * 63 + "/"])
def test_what_is_no_image_id_is_refused(image: str) -> None:
    request = pb.CreateSnapshotDeviceRequest(vm_id=VM, image_id=image, size_bytes=4096)
    refused(pb.Change(create_snapshot_device=request))


def test_a_change_without_a_verb_no_change_and_too_many_are_refused() -> None:
    refused(pb.Change())
    for count in (0, 65):
        change = pb.Change(ensure_network=pb.EnsureNetworkRequest())
        with pytest.raises(InvalidRequest, match=f"{count} changes; 1 to 64 are allowed"):
            NETWORK.verbs(pb.ApplyRequest(changes=[change] * count))


def test_each_part_refuses_what_is_the_others() -> None:
    tap = pb.Change(create_tap=pb.CreateTapRequest(vm_id=VM, slot=2))
    device = pb.Change(remove_snapshot_device=pb.RemoveSnapshotDeviceRequest(vm_id=VM))
    NETWORK.verb(tap)
    DEVICES.verb(device)
    with pytest.raises(InvalidRequest, match="this helper serves devices"):
        DEVICES.verb(tap)
    with pytest.raises(InvalidRequest, match="this helper serves the network"):
        NETWORK.verb(device)
    with pytest.raises(InvalidRequest, match="this helper serves devices"):
        DEVICES.wanted(pb.ReconcileRequest(networks=[0]))


INCONSISTENT = {
    "slot 2 without network 0": pb.ReconcileRequest(taps=[pb.WantedTap(vm_id=VM, slot=2)]),
    "tap 2 of 0123456789ab: wanted twice": pb.ReconcileRequest(
        networks=[0], taps=[pb.WantedTap(vm_id=VM, slot=2), pb.WantedTap(vm_id=VM, slot=2)]
    ),
    "network 1: wanted twice": pb.ReconcileRequest(networks=[1, 1]),
    "that slot is not wanted for VM": pb.ReconcileRequest(
        networks=[0],
        taps=[pb.WantedTap(vm_id="b" * 12, slot=2)],
        ports=[pb.PublishedPort(vm_id=VM, slot=2, protocol=pb.PROTOCOL_TCP, host_port=8080, vm_port=80)],
    ),
    "more than 3, which max_taps in the policy allows": pb.ReconcileRequest(
        networks=[0], taps=[pb.WantedTap(vm_id=VM, slot=slot) for slot in range(2, 6)]
    ),
}


@pytest.mark.parametrize(("words", "request_"), INCONSISTENT.items(), ids=INCONSISTENT)
def test_a_wish_that_contradicts_itself_is_refused(words: str, request_: pb.ReconcileRequest) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(words)):
        NETWORK.wanted(request_)


def test_what_is_wanted_becomes_a_state() -> None:
    port = pb.PublishedPort(vm_id=VM, slot=2, protocol=pb.PROTOCOL_UDP, host_port=8080, vm_port=80)
    tap = pb.WantedTap(vm_id=VM, slot=2, nat=True, bytes_per_second=1 << 20)
    assert NETWORK.wanted(pb.ReconcileRequest(networks=[0, 3], taps=[tap], ports=[port])) == State(
        [Network(0), Network(3), Tap(2, VM), Nat(2), Limit(2, 1 << 20), Published(Protocol.UDP, 8080, 2, 80)]
    )
    device = pb.WantedDevice(vm_id=VM, image_id=IMAGE, size_bytes=8192)
    assert DEVICES.wanted(pb.ReconcileRequest(devices=[device])) == State([Device(VM, IMAGE, 8192)])


@pytest.mark.parametrize("rate", [1, 131_071, 2**49 + 1, 2**64 - 1])
def test_a_rate_that_nothing_passes_at_or_nothing_has_is_refused(rate: int) -> None:
    refused(pb.Change(limit_tap=pb.LimitTapRequest(vm_id=VM, slot=2, bytes_per_second=rate)))
    tap = pb.WantedTap(vm_id=VM, slot=2, bytes_per_second=rate)
    with pytest.raises(InvalidRequest, match="131072 to 562949953421312 are allowed, or 0 for none"):
        NETWORK.wanted(pb.ReconcileRequest(networks=[0], taps=[tap]))


def test_a_port_wanted_everywhere_is_wanted_at_no_single_address() -> None:
    def wanted(*addresses: str) -> State:
        ports = [
            pb.PublishedPort(vm_id=VM, slot=2, protocol=pb.PROTOCOL_TCP, host_port=8080, vm_port=80, address=address)
            for address in addresses
        ]
        return NETWORK.wanted(pb.ReconcileRequest(networks=[0], taps=[pb.WantedTap(vm_id=VM, slot=2)], ports=ports))

    assert len(wanted("192.0.2.1", "192.0.2.2")) == 4
    for pair in ("", "192.0.2.1"), ("192.0.2.1", ""), ("192.0.2.1", "192.0.2.1"), ("", ""):
        with pytest.raises(InvalidRequest, match="wanted twice"):
            wanted(*pair)

"""Who a VM's guest is: the same at each boot, and no other VM's."""

import re
from dataclasses import replace

from ingle.api_server.adapters.vmm.boot import boot_config, machine_id, shared_networks, user_mac
from ingle.api_server.model.guest import GuestIdentity
from ingle.api_server.ports.network import Link
from unit.api_server.vmms import VM

LINK = Link("tap0", "02:00:00:00:00:07", "10.80.0.7", 24, "10.80.0.1")
IDS = [f"{number:012x}" for number in range(1000)]


def identity(token: bytes) -> GuestIdentity:
    return boot_config(
        VM, token, shared_networks(LINK), root_device="/dev/vda", modules_device="", ready_device=""
    ).identity


def test_a_boot_differs_from_the_next_one_in_token_and_entropy_alone() -> None:
    one, other = identity(b"1" * 32), identity(b"2" * 32)
    assert (one.token, other.token) == (b"1" * 32, b"2" * 32)
    assert one.entropy != other.entropy
    assert replace(one, token=b"", entropy=b"") == replace(other, token=b"", entropy=b"")


def test_a_machine_id_is_one_by_its_form_and_each_vms_own() -> None:
    ids = {machine_id(vm_id) for vm_id in IDS}
    assert len(ids) == len(IDS)
    assert all(re.fullmatch("[0-9a-f]{32}", found) for found in ids)


def test_hardware_addresses_are_of_one_card_and_local() -> None:
    for found in map(user_mac, IDS):
        assert re.fullmatch("52:54:00(:[0-9a-f]{2}){3}", found)
    assert len(set(map(user_mac, IDS))) > len(IDS) / 2


def test_in_a_shared_network_it_is_the_links() -> None:
    assert [network.mac for network in identity(b"").networks] == [LINK.mac]

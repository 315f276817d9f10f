"""Names and addresses follow from the slot, fit where they must, and never meet."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network

from ingle.host_helper.names import HOSTS, LOOSE, Addresses, bridge_name, is_our_name, link_local, mac, tap_name
from ingle.host_helper.policy import parse

ADDRESSES = Addresses.of(parse({"user": 4242}, "here"))
SLOTS = [network << 8 | host for network in range(256) for host in HOSTS]


def test_names_fit_and_are_known_as_ours() -> None:
    names = [*map(tap_name, [*SLOTS, *LOOSE]), *map(bridge_name, range(256))]
    assert max(map(len, names)) <= 15
    assert all(map(is_our_name, names))
    for name in ("ingt", "ingb-1", "ingt02", "ingt1x", "xingt1", "ingt123456", "ingle0", "ingt1\n", "eth0"):
        assert not is_our_name(name)


def test_no_two_vms_have_the_same_mac_or_address() -> None:
    for each in (mac, link_local, ADDRESSES.ipv4, ADDRESSES.ipv6):
        gateways = [ADDRESSES.gateway(network) for network in range(256)]
        assert len({each(slot) for slot in SLOTS + gateways}) == len(SLOTS) + 256


def test_a_tap_that_leads_nowhere_is_in_no_network_and_has_a_mac_that_nobody_else_has() -> None:
    assert not {slot >> 8 for slot in LOOSE} & set(range(ADDRESSES.networks))
    assert len({mac(slot) for slot in [*SLOTS, *LOOSE]}) == len(SLOTS) + len(LOOSE)


def test_addresses_are_in_their_networks() -> None:
    for slot in SLOTS:
        assert ADDRESSES.ipv4(slot) in ADDRESSES.subnet4(slot >> 8)
        subnet, address = ADDRESSES.subnet6(slot >> 8), ADDRESSES.ipv6(slot)
        assert subnet is not None
        assert address is not None
        assert address in subnet
    assert ADDRESSES.ipv4(ADDRESSES.gateway(255)) == IPv4Address("10.213.255.1")
    assert ADDRESSES.subnet6(255) == IPv6Network("fd69:6e67:6c65:ff::/64")


def test_macs_are_local_and_their_link_local_address_is_eui_64() -> None:
    assert mac(0xAB07) == "02:69:6e:67:ab:07"
    assert link_local(0xAB07) == IPv6Address("fe80::69:6eff:fe67:ab07")


def test_a_smaller_pool_has_fewer_networks() -> None:
    assert Addresses.of(parse({"user": 4242, "ipv4_pool": "10.0.0.0/24"}, "here")).networks == 1

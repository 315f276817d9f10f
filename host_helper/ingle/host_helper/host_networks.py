"""The networks that this host has a use for, as the kernel tells by netlink: all but ours.

pyroute2 takes a second to load and 24 MB, so this is for programs that look once and end."""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from pyroute2 import IPRoute

from ingle.host_helper.names import OUR_GROUPS, is_our_name
from ingle.host_helper.pools import Claim, significant

_FAMILIES = {socket.AF_INET: 32, socket.AF_INET6: 128}
_MAIN, _LOCAL = 254, 255  # linux/rtnetlink.h: rt_class_t
_TO_TABLE = 1  # linux/fib_rules.h: FR_ACT_TO_TBL


def claims() -> list[Claim]:
    """Of every routing table, whichever rule or VRF leads to it; of every address, also of interfaces that are down;
    and of the rules that choose a table by address. Raises OSError, and pyroute2.NetlinkError."""
    with IPRoute() as kernel:
        links = {link["index"]: link for link in kernel.get_links()}
        names = {index: str(link.get("ifname")) for index, link in links.items()}
        ours = {name for index, name in names.items() if is_our_name(name) and links[index].get("group") in OUR_GROUPS}
        found = [claim for address in kernel.get_addr() for claim in _of_address(address, names)]
        for family in _FAMILIES:
            found += (claim for route in kernel.get_routes(family=family) for claim in _of_route(route, names))
            found += (claim for rule in kernel.get_rules(family=family) for claim in _of_rule(rule))
    return significant(claim for claim in found if claim.interface not in ours)


def _of_route(route: Any, names: dict[int, str]) -> Iterator[Claim]:
    destination = route.get("dst")
    if destination is None or route["flags"] & _CLONED:
        return
    hops = [route, *(route.get("multipath") or ())]
    interfaces = [names[hop.get("oif")] for hop in hops if hop.get("oif") in names]
    table = route.get("table")
    place = "route" if table in {_MAIN, _LOCAL} else f"route in table {table}"
    for interface in interfaces or [""]:
        yield Claim(_network(destination, route["dst_len"]), interface, place)


def _of_address(address: Any, names: dict[int, str]) -> Iterator[Claim]:
    interface = names.get(address["index"], "")
    local, peer = address.get("local"), address.get("address")
    for text, length in ((peer, address["prefixlen"]), (local, _FAMILIES[address["family"]])):
        if text is not None:
            yield Claim(_network(text, length), interface, "address")


def _of_rule(rule: Any) -> Iterator[Claim]:
    if rule["action"] == _TO_TABLE and rule.get("table") in {_MAIN, _LOCAL}:
        return
    for text, length in ((rule.get("dst"), rule["dst_len"]), (rule.get("src"), rule["src_len"])):
        if text is not None:
            yield Claim(_network(text, length), "", f"rule {rule.get('priority')} to table {rule.get('table')}")


def _network(text: str, length: int) -> IPv4Network | IPv6Network:
    return ip_network(f"{text.partition('/')[0]}/{length}", strict=False)


_CLONED = 0x200  # linux/rtnetlink.h: RTM_F_CLONED, what a lookup has left behind

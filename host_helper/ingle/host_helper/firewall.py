"""Who may talk to whom: one static table for IP and one for bridges, in which a VM is elements of sets and maps.

What the rules promise:
* A guest sends nothing but from its own MAC and addresses, and claims no other in ARP and neighbour discovery.
* VMs of one network reach each other, and no other network.
* A guest reaches what the host reaches only with NAT on, and of the host itself only DNS at its gateway, which nobody
  answers but the API server's user.
* A guest sends and receives no more in a second than its limit, where it has one.
* A published port of the host is a VM's, from anywhere but the host's loopback.
* What is on no set is dropped: a tap or bridge of ours without elements is deaf and dumb.

`drop` is final whatever other tables say; our `accept` is not, see coexistence.py for those who drop.
"""

from collections.abc import Iterable, Iterator
from importlib import resources
from typing import NamedTuple

from ingle.host_helper.errors import KernelRefused
from ingle.host_helper.names import (
    LOOSE,
    Addresses,
    bridge_name,
    link_local,
    mac,
    network_of,
    tap_name,
)
from ingle.host_helper.nft import Nft
from ingle.host_helper.state import Limit, Nat, Network, Published, Resource, State, Tap

_RULES = resources.files(__package__).joinpath("rules.nft").read_text()
_FAMILIES = ("inet", "bridge")
TABLE = "ingle"
_WAYS = ("from", "to")


class Element(NamedTuple):
    """One element of a set or map."""

    family: str
    set: str
    text: str


class Firewall:
    """The two tables. Raises KernelRefused."""

    def __init__(self, nft: Nft, addresses: Addresses, server: int) -> None:
        """`server` is the API server's uid."""
        self._answerers = ", ".join(map(str, sorted({0, server})))
        self._nft = nft
        self._addresses = addresses
        self.ways: frozenset[str] = frozenset()
        """Interfaces that forward because of us, and so may lead to VMs only."""

    def change(self, old: State, new: State) -> None:
        """From what `old` stands for to what `new` does, in one transaction.

        Where somebody has flushed or changed our tables, they are made anew."""
        added, removed = new.beyond(old), old.beyond(new)
        come, gone = list(self._elements(added)), list(self._elements(removed))
        # Two ports of the host may lead to the same one of a VM: what one of them leaves behind is still the other's.
        slots = {resource.slot for resource in removed if isinstance(resource, Published)}
        if slots:
            shared = set(self._elements(port for port in new.all(Published) if port.slot in slots))
            gone = [element for element in gone if element not in shared]
        if not gone and not come:
            return
        try:
            undefined = (f"delete limit bridge {TABLE} {name}\n" for name in _limits(removed))
            self._nft.run("".join([*_commands("delete", gone), *undefined, *_defined(added), *_commands("add", come)]))
        except KernelRefused:
            self.replace(new)

    def replace(self, state: State) -> None:
        """Both tables anew, in one transaction."""
        clear = "".join(f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in _FAMILIES)
        elements = [*self._elements(state), *self._of_ways()]
        self._nft.run("".join([clear, self._tables(), *_defined(state), *_commands("add", elements)]))

    def guard(self, ways: frozenset[str]) -> None:
        """Let what comes in by these lead to VMs only. Nothing where there is no table, so nothing is led."""
        self.ways = ways
        add = "".join(_commands("add", self._of_ways()))
        try:
            self._nft.run(f"flush set inet {TABLE} ways\n{add}")
        except KernelRefused:
            if ways:
                raise

    def _of_ways(self) -> Iterator[Element]:
        for name in sorted(self.ways):
            yield Element("inet", "ways", f'"{name}"')

    def remove(self) -> None:
        """Neither table is there."""
        self._nft.run("".join(f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in _FAMILIES))

    def _elements(self, resources: Iterable[Resource]) -> Iterator[Element]:
        for resource in resources:
            match resource:
                case Network():
                    yield from self._of_network(resource)
                case Tap(slot, _) if slot not in LOOSE:
                    yield from self._of_tap(slot)
                case Nat(slot):
                    yield Element("inet", "nat4", str(self._addresses.ipv4(slot)))
                    if (ipv6 := self._addresses.ipv6(slot)) is not None:
                        yield Element("inet", "nat6", str(ipv6))
                case Limit(slot, _):
                    for way in _WAYS:
                        yield Element("bridge", f"limits_{way}", f'"{tap_name(slot)}" : "{_limit_name(resource, way)}"')
                case Published():
                    yield from self._of_port(resource)

    def _of_network(self, network: Network) -> Iterator[Element]:
        name, gateway, dns = bridge_name(network.number), self._addresses.gateway(network.number), network.dns_port
        yield Element("inet", "within", f'"{name}" . "{name}"')
        for protocol in ("tcp", "udp"):
            yield Element("inet", "services4", f'"{name}" . {self._addresses.ipv4(gateway)} . {protocol} . 53 : {dns}')
            if (ipv6 := self._addresses.ipv6(gateway)) is not None:
                yield Element("inet", "services6", f'"{name}" . {ipv6} . {protocol} . 53 : {dns}')

    def _of_tap(self, slot: int) -> Iterator[Element]:
        tap = f'"{tap_name(slot)}"'
        ipv4, ipv6 = self._addresses.ipv4(slot), self._addresses.ipv6(slot)
        yield Element("inet", "bound4", f'"{bridge_name(network_of(slot))}" . {ipv4}')
        yield Element("bridge", "macs", f"{tap} . {mac(slot)}")
        yield Element("bridge", "sources4", f"{tap} . {mac(slot)} . {ipv4}")
        if ipv6 is not None:
            yield Element("inet", "bound6", f'"{bridge_name(network_of(slot))}" . {ipv6}')
            for address in (ipv6, link_local(slot)):
                yield Element("bridge", "sources6", f"{tap} . {mac(slot)} . {address}")
                yield Element("bridge", "targets6", f"{tap} . 0x{int(address):032x}")

    def _of_port(self, port: Published) -> Iterator[Element]:
        for family, address in ("4", self._addresses.ipv4(port.slot)), ("6", self._addresses.ipv6(port.slot)):
            if address is not None:
                service = f"{port.protocol.value} . {port.host_port}"
                if not port.address:
                    yield Element("inet", f"ports{family}", f"{service} : {address} . {port.vm_port}")
                elif (":" in port.address) == (family == "6"):
                    place = f"{port.address} . {service}"
                    yield Element("inet", f"places{family}", f"{place} : {address} . {port.vm_port}")
                else:
                    continue
                yield Element("inet", f"open{family}", f"{address} . {port.protocol.value} . {port.vm_port}")

    def _tables(self) -> str:
        return _RULES.replace("$pool4", str(self._addresses.pool4)).replace("$answerers", self._answerers)


def _commands(verb: str, elements: Iterable[Element]) -> Iterator[str]:
    """One command for each set: much less to parse than one for each element."""
    by_set: dict[tuple[str, str], list[str]] = {}
    for element in elements:
        by_set.setdefault((element.family, element.set), []).append(element.text)
    for (family, name), texts in by_set.items():
        yield f"{verb} element {family} {TABLE} {name} {{ {', '.join(texts)} }}\n"


def _defined(resources: Iterable[Resource]) -> Iterator[str]:
    """A command for each limit, before elements of maps lead to it."""
    for name, rate in _limits(resources).items():
        yield f"add limit bridge {TABLE} {name} {rate}\n"


def _limits(resources: Iterable[Resource]) -> dict[str, str]:
    """By name, as nft has them: a rate above which the rule goes on to drop. What nobody has used may be
    used later, for up to a second."""
    return {
        _limit_name(each, way): f"{{ rate over {each.bytes_per_second} bytes/second ; }}"
        for each in resources
        if isinstance(each, Limit)
        for way in _WAYS
    }


def _limit_name(limit: Limit, way: str) -> str:
    """One of another rate is another one: nft changes none."""
    return f"{way}-{limit.slot}-{limit.bytes_per_second}"

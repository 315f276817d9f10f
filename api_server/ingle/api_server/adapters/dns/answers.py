"""What is answered to whom: pure.

A VM sees the names of its own network. On the host, where nobody can tell which user asks, a VM is NAME.UID with the
uid of its owner: so no user's VM takes the place of another's, and only who knows both hears that it is there. What is
not ours is for other servers, and only those VMs may have them asked that may reach beyond their network: a question to
the world is a way out like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from ingle.api_server.adapters.dns import wire
from ingle.api_server.adapters.dns.wire import Question, Record
from ingle.api_server.model.caller import ROOT

_DIGITS = 32  # of an IPv6 address
_LONGEST_UID = 10
_TTL_SECONDS = 5  # a VM may be stopped, and another get its address, at any time


@dataclass(frozen=True, slots=True)
class Host:
    """A VM that runs, or is asleep, in a shared network."""

    name: str
    network: str
    address: str
    nat: bool
    address6: str = ""
    """Empty: it has none."""

    owner: int = ROOT
    """A uid; the name is unique among its own, and so is the network's."""

    sleeper: str = ""
    """The VM's id, if it is asleep and is to be woken for a neighbour who asks for it; else empty."""


class Directory:
    """The hosts, as they were told of last."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}
        self._by_name: dict[tuple[int, str], Host] = {}
        self._by_address: dict[str, Host] = {}

    def tell(self, vm_id: str, host: Host | None) -> None:
        """The VM is such a host, or none."""
        if host is None:
            self._hosts.pop(vm_id, None)
        else:
            self._hosts[vm_id] = host
        hosts = self._hosts.values()
        self._by_name = {(each.owner, each.name): each for each in hosts}
        self._by_address = {address: each for each in hosts for address in (each.address, each.address6) if address}

    def by_name(self, owner: int, name: str) -> Host | None:
        """The owner's host of that name."""
        return self._by_name.get((owner, name))

    def by_address(self, address: str) -> Host | None:
        """The host at that address."""
        return self._by_address.get(address)


class Forward(Exception):
    """The question is for another server."""


class Answers:
    """For one domain, e.g. "vm"."""

    def __init__(self, domain: str, directory: Directory) -> None:
        self._domain = tuple(domain.encode().lower().split(b"."))
        self._directory = directory

    def to(self, question: Question, asker: str) -> bytes:
        """The reply for who asks from address `asker`. Raises Forward."""
        if question.error:
            return wire.reply(question, code=question.error, ours=False)
        from_host = ip_address(asker).is_loopback
        caller = None if from_host else self._directory.by_address(asker)
        if caller is None and not from_host:
            return wire.reply(question, code=wire.REFUSED)
        if (labels := self._ours(question)) is not None:
            return self._about_name(question, labels, caller)
        if (found := self._reverse(question, caller)) is not None:
            name = wire.name((found.name.encode(), *self._domain))
            return self._found(question, [Record(wire.PTR, name, _TTL_SECONDS)])
        if caller is not None and not caller.nat:
            return wire.reply(question, code=wire.REFUSED)
        raise Forward

    def sleeper(self, question: Question, asker: str) -> str:
        """The VM, by id, that is to be woken, since the question is for its address and the asker in its network; empty
        when there is none. What asks on the host may be anybody's, and wakes nobody."""
        caller = self._directory.by_address(asker)
        labels = self._ours(question)
        if question.error or caller is None or not labels or question.kind not in {wire.A, wire.AAAA, wire.ANY}:
            return ""
        found = self._named(labels, caller)
        return "" if found is None else found.sleeper

    def _ours(self, question: Question) -> Sequence[str] | None:
        """What is before our domain in the name; None of a name that is not in it."""
        depth = len(question.labels) - len(self._domain)
        if depth < 0 or question.labels[depth:] != self._domain:
            return None
        return [label.decode("ascii", "replace") for label in question.labels[:depth]]

    def _about_name(self, question: Question, labels: Sequence[str], caller: Host | None) -> bytes:
        if not labels:  # the domain itself is there, and has no addresses
            return self._found(question, [])
        found = self._named(labels, caller)
        if found is None:
            return wire.reply(question, (), [self._authority], code=wire.NXDOMAIN)
        addresses = [(wire.A, found.address), *([(wire.AAAA, found.address6)] if found.address6 else [])]
        return self._found(question, [Record(kind, wire.address(text), _TTL_SECONDS) for kind, text in addresses])

    def _named(self, labels: Sequence[str], caller: Host | None) -> Host | None:
        match labels, caller:
            case [name], Host():
                found = self._directory.by_name(caller.owner, name)
                return found if found is not None and _share_network(caller, found) else None
            case [name, owner], None if owner.isdecimal() and len(owner) <= _LONGEST_UID:
                return self._directory.by_name(int(owner), name)
            case _:
                return None

    def _found(self, question: Question, records: Sequence[Record]) -> bytes:
        """Those of what there is that were asked for."""
        wanted = [each for each in records if question.kind in {each.kind, wire.ANY}]
        return wire.reply(question, wanted, () if wanted else [self._authority])

    @property
    def _authority(self) -> Record:
        return wire.start_of_authority(self._domain, _TTL_SECONDS)

    def _reverse(self, question: Question, caller: Host | None) -> Host | None:
        if caller is None:
            return None
        address = _reversed([label.decode("ascii", "replace") for label in question.labels])
        found = None if address is None else self._directory.by_address(address)
        return found if found is not None and _share_network(caller, found) else None


def _reversed(labels: Sequence[str]) -> str | None:
    """The address that a name below in-addr.arpa (RFC 1035: four numbers) or ip6.arpa (RFC 3596: 32 digits) is of."""
    parts, zone = labels[-3::-1], tuple(labels[-2:])
    try:
        if zone == ("in-addr", "arpa"):
            return str(IPv4Address(".".join(parts)))
        if zone == ("ip6", "arpa") and len(parts) == _DIGITS and all(len(part) == 1 for part in parts):
            return str(IPv6Address(int("".join(parts), 16)))
    except ValueError:
        pass
    return None


def _share_network(one: Host, other: Host) -> bool:
    return (one.owner, one.network) == (other.owner, other.network)

"""What is answered to whom: pure, but for looking VMs up.

A VM sees the names of its own network, the host sees all. What is not ours is for other servers, and only those VMs may
have them asked that may reach beyond their network: a question to the world is a way out like any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from dnslib import AAAA, PTR, QTYPE, RCODE, RR, SOA, A, DNSLabel, DNSRecord

_DIGITS = 32  # of an IPv6 address
_TTL_SECONDS = 5  # a VM may be stopped, and another get its address, at any time


@dataclass(frozen=True, slots=True)
class Host:
    """A VM that runs in a shared network."""

    name: str
    network: str
    address: str
    nat: bool
    address6: str = ""
    """Empty: it has none."""


@dataclass(frozen=True, slots=True)
class Directory:
    """How hosts are found; None: there is none."""

    by_name: Callable[[str], Host | None]
    by_address: Callable[[str], Host | None]


class Forward(Exception):
    """The question is for another server."""


class Answers:
    """For one domain, e.g. "vm"."""

    def __init__(self, domain: str, directory: Directory) -> None:
        self._domain = DNSLabel(domain)
        self._directory = directory

    def to(self, question: DNSRecord, asker: str) -> DNSRecord:
        """The reply for who asks from address `asker`. Raises Forward."""
        reply = question.reply(ra=1, aa=1)
        if len(question.questions) != 1:
            reply.header.rcode = RCODE.FORMERR
            return reply
        name, kind = question.q.qname, question.q.qtype
        from_host = ip_address(asker).is_loopback
        caller = None if from_host else self._directory.by_address(asker)
        if caller is None and not from_host:
            reply.header.rcode = RCODE.REFUSED
            return reply
        if name.matchSuffix(self._domain):
            self._answer_name(reply, name, kind, caller)
        elif (found := self._reverse(name, caller)) is not None:
            if kind in {QTYPE.PTR, QTYPE.ANY}:
                pointer = PTR(DNSLabel((found.name.encode(), *self._domain.label)))
                reply.add_answer(RR(name, QTYPE.PTR, rdata=pointer, ttl=_TTL_SECONDS))
            else:
                self._add_authority(reply)
        elif caller is not None and not caller.nat:
            reply.header.rcode = RCODE.REFUSED
        else:
            raise Forward
        return reply

    def _answer_name(self, reply: DNSRecord, name: DNSLabel, kind: int, caller: Host | None) -> None:
        labels = name.stripSuffix(self._domain).label
        if not labels:  # the domain itself is there, and has no addresses
            self._add_authority(reply)
            return
        found = self._directory.by_name(labels[0].decode("ascii", "replace").lower()) if len(labels) == 1 else None
        if found is None or not _may_know(caller, found):
            reply.header.rcode = RCODE.NXDOMAIN
            self._add_authority(reply)
        else:
            if kind in {QTYPE.A, QTYPE.ANY}:
                reply.add_answer(RR(name, QTYPE.A, rdata=A(found.address), ttl=_TTL_SECONDS))
            if kind in {QTYPE.AAAA, QTYPE.ANY} and found.address6:
                reply.add_answer(RR(name, QTYPE.AAAA, rdata=AAAA(found.address6), ttl=_TTL_SECONDS))
            if not reply.rr:
                self._add_authority(reply)

    def _reverse(self, name: DNSLabel, caller: Host | None) -> Host | None:
        address = _reversed(tuple(label.decode("ascii", "replace").lower() for label in name.label))
        found = None if address is None else self._directory.by_address(address)
        return found if found is not None and _may_know(caller, found) else None

    def _add_authority(self, reply: DNSRecord) -> None:
        """A negative answer without it may not be kept, RFC 2308: resolvers would ask again and again."""
        serial, refresh, retry, expire = 1, 60, 60, 60
        times = (serial, refresh, retry, expire, _TTL_SECONDS)
        soa = SOA(self._domain, DNSLabel((b"root", *self._domain.label)), times)
        reply.add_auth(RR(self._domain, QTYPE.SOA, rdata=soa, ttl=_TTL_SECONDS))


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


def _may_know(caller: Host | None, found: Host) -> bool:
    """The host (None) may know all."""
    return caller is None or found.network == caller.network

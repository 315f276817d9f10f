"""What the helper has made, or is to make: resources, and sets of them.

Immutable. A verb is a function from one state to the next, and everything else follows from the difference.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, TypeVar

DNS_PORT = 10053
"""Where DNS is served unless somebody has that port: one that takes no rights."""


class Protocol(Enum):
    """Of a published port; the value is nft's word for it."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class Network:
    """A bridge and its gateway addresses. DNS for it is served at `dns_port` of the host."""

    number: int
    dns_port: int = DNS_PORT

    @property
    def key(self) -> tuple[str, ...]:
        return ("network", str(self.number))

    def __str__(self) -> str:
        return f"network {self.number}"


@dataclass(frozen=True, slots=True)
class Tap:
    """A VM's interface."""

    slot: int
    vm: str

    @property
    def key(self) -> tuple[str, ...]:
        return ("tap", str(self.slot))

    def __str__(self) -> str:
        return f"tap {self.slot} of {self.vm}"


@dataclass(frozen=True, slots=True)
class Nat:
    """The VM at a slot may reach what the host reaches."""

    slot: int

    @property
    def key(self) -> tuple[str, ...]:
        return ("nat", str(self.slot))

    def __str__(self) -> str:
        return f"nat of {self.slot}"


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that the VM at a slot sends in a second, and receives."""

    slot: int
    bytes_per_second: int

    @property
    def key(self) -> tuple[str, ...]:
        return ("limit", str(self.slot))

    def __str__(self) -> str:
        return f"limit of {self.slot} to {self.bytes_per_second} bytes a second"


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the host that is a VM's."""

    protocol: Protocol
    host_port: int
    slot: int
    vm_port: int
    address: str = ""
    """Empty: every one of the host's."""

    @property
    def key(self) -> tuple[str, ...]:
        return ("port", self.protocol.value, str(self.host_port), self.address)

    def meets(self, other: "Published") -> bool:
        """Whether some packet would be for both."""
        same = (self.protocol, self.host_port) == (other.protocol, other.host_port)
        return same and (not self.address or not other.address or self.address == other.address)

    def __str__(self) -> str:
        at = f" at {self.address}" if self.address else ""
        return f"port {self.host_port}/{self.protocol.value}{at} to {self.vm_port} of {self.slot}"


@dataclass(frozen=True, slots=True)
class Device:
    """A VM's snapshot of an image."""

    vm: str
    image: str
    size: int  # bytes

    @property
    def key(self) -> tuple[str, ...]:
        return ("device", self.vm)

    def __str__(self) -> str:
        return f"device of {self.vm}"


Resource: TypeAlias = Network | Tap | Nat | Limit | Published | Device
Kind = TypeVar("Kind", Network, Tap, Nat, Limit, Published, Device)


class State:
    """Resources, one a key."""

    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        self._by_key = {resource.key: resource for resource in resources}

    @classmethod
    def _of(cls, by_key: dict[tuple[str, ...], Resource]) -> "State":
        state = cls()
        state._by_key = by_key  # our own
        return state

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, resource: Resource) -> bool:
        return self._by_key.get(resource.key) == resource

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self._by_key == other._by_key

    __hash__ = None  # type: ignore[assignment] # nobody needs it, and it would cost

    def get(self, *key: str) -> Resource | None:
        """The resource with this key."""
        return self._by_key.get(key)

    def network(self, number: int) -> Network | None:
        """The network with that number."""
        found = self.get("network", str(number))
        return found if isinstance(found, Network) else None

    def tap(self, slot: int) -> Tap | None:
        """The tap at a slot."""
        found = self.get("tap", str(slot))
        return found if isinstance(found, Tap) else None

    def rate(self, slot: int) -> int:
        """What the VM at a slot may send in a second, and receive; 0: no limit."""
        found = self.get("limit", str(slot))
        return found.bytes_per_second if isinstance(found, Limit) else 0

    def device(self, vm: str) -> Device | None:
        """A VM's device."""
        found = self.get("device", vm)
        return found if isinstance(found, Device) else None

    def all(self, kind: type[Kind]) -> list[Kind]:
        """Every resource of a kind."""
        return [resource for resource in self if isinstance(resource, kind)]

    def plus(self, *resources: Resource) -> "State":
        """With these, instead of what has their keys."""
        return State._of(self._by_key | {resource.key: resource for resource in resources})

    def minus(self, resources: Iterable[Resource]) -> "State":
        """Without these, or what else has their keys."""
        left = self._by_key.copy()
        for resource in resources:
            left.pop(resource.key, None)
        return State._of(left)

    def beyond(self, other: "State") -> list[Resource]:
        """What is here and not there, or there is different."""
        theirs = other._by_key  # noqa: SLF001 # one of us
        # Most are the very same object, which is much cheaper to see than equality.
        return [mine for key, mine in self._by_key.items() if mine is not (its := theirs.get(key)) and mine != its]

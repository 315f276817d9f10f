"""A guest's network as seen from inside: its servers, and connections to them."""

from dataclasses import dataclass

from ingle.api_server.model.network import Protocol


@dataclass(frozen=True, slots=True)
class GuestPort:
    """A TCP port of a host that the guest reaches; an empty host is the guest itself, on IPv4 or IPv6 loopback."""

    port: int
    host: str = ""


@dataclass(frozen=True, slots=True)
class GuestSocket:
    """A unix socket in the guest's file system, by absolute path."""

    path: str


@dataclass(frozen=True, slots=True)
class ForwardSpec:
    """What to connect to, and how long that may take."""

    target: GuestPort | GuestSocket
    timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Connected:
    """The first event of a forward; `address` is what answered."""

    address: str


@dataclass(frozen=True, slots=True)
class Received:
    """What the guest's server sent."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PeerEnded:
    """The guest's server sends nothing more; it may still read."""


ForwardEvent = Connected | Received | PeerEnded


@dataclass(frozen=True, slots=True)
class ListeningPort:
    """A socket that takes connections, or anybody's datagrams. `pid` 0 is the guest's kernel; `user` may be empty."""

    protocol: Protocol
    address: str
    port: int
    pid: int
    process: str
    command: tuple[str, ...]
    uid: int
    user: str


@dataclass(frozen=True, slots=True)
class ListeningPorts:
    """TCP before UDP, by port; `truncated` when the guest has more."""

    ports: tuple[ListeningPort, ...]
    truncated: bool

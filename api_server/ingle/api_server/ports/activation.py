"""Where somebody may come who wants something of a VM that is asleep. Published ports of those that hibernate: there is
nobody else who could have them."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol, TypeAlias

from ingle.api_server.model.network import PublishedPort
from ingle.api_server.model.vm import Vm

Waken: TypeAlias = Callable[[str], Awaitable[Vm | None]]


class Door(Protocol):
    """A place where that may be."""

    waken: Waken
    """Returns when a VM, by its id, is awake that was asleep: the VM; None when it is not. Set by who wakes."""


async def nobody(_vm_id: str) -> Vm | None:
    """Wakes none: what a door has until then."""
    return None


class ActivationSockets(Door, Protocol):
    """Who connects to one is kept waiting until `waken` has returned, and then connected to whoever has the port by
    then; a datagram only wakes. At an answer of None, and after two minutes, who waits is reset. How many may wait is
    bounded, by VM and in all: who is one too many is reset at once."""

    def listen(self, vm: Vm) -> None:
        """Have its ports. One that somebody else has is tried again until it is free; that is in the log. Done already
        is fine."""

    def take_over(self, vm: Vm, descriptors: Mapping[PublishedPort, int]) -> None:
        """The same with sockets that have ports already, so that there is no instant in which nobody has them. They are
        whoever's this is from now on."""

    def listening(self, vm_id: str) -> Collection[PublishedPort]:
        """Those that it has."""

    def retire(self, vm_id: str) -> None:
        """Have them no more; who has connected waits on. Absent is fine."""

    async def hand_over(self, vm: Vm, publish: Callable[[PublishedPort], Awaitable[None]]) -> None:
        """The same, of a VM in a network of its own: each is free for `publish`, that takes it, when that is called.
        Raises what that raises."""

    def close(self, vm_id: str) -> None:
        """Have them no more, and reset who waits; who is connected stays so. Absent is fine."""

"""What is remembered of images and of kernels."""

from typing import Protocol, TypeVar

from ingle.api_server.model.caller import Caller

Item = TypeVar("Item")


class ItemStore(Protocol[Item]):
    """The images, or the kernels, that are here."""

    async def add(self, item: Item, name: str, caller: Caller, op_id: str = "", *, pulled: bool = False) -> Item:
        """Record it if it is new, and let `name`, which is the caller's then, stand for it (it may have stood for
        another). The operation that has made it keeps it: see ports.store.journal. Raises Conflict: NOT_OWNER,
        QUOTA_EXCEEDED when it has too many names of the caller's."""

    async def check_may_name(self, name: str, caller: Caller) -> None:
        """Raise Conflict(NOT_OWNER) unless `add` would let the caller have it."""

    async def get(self, reference: str) -> Item:
        """The one with that id or name."""

    async def find(self, reference: str) -> Item:
        """The same, or the one whose id begins so: for who only looks."""

    async def all(self) -> list[Item]:
        """All, oldest first."""

    async def delete(self, item_id: str, caller: Caller, op_id: str = "") -> bool:
        """Whether it is gone: where others have it too, what is the caller's of it goes, and it stays. Raises Conflict:
        NOT_OWNER, or IN_USE naming those VMs and snapshots that the caller may know."""

    async def untag(self, item_id: str, name: str, caller: Caller) -> bool:
        """Take one of its names away, if it has others; answers whether it had. Raises Conflict(NOT_OWNER)."""

    async def used(self) -> set[str]:
        """Ids of those that VMs or snapshots are made of."""

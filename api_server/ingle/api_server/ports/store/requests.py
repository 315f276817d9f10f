"""What is remembered of creates that may be sent again."""

from typing import NamedTuple, Protocol


class RequestKey(NamedTuple):
    """A request as its caller calls it: ids of others are other requests."""

    uid: int
    request_id: str


class Asked(NamedTuple):
    """What was asked for by it, as a digest, and the operation that does it."""

    digest: bytes
    op_id: str


class RequestStore(Protocol):
    """Of each user the last requests that had an id; a bounded number of them."""

    async def get(self, key: RequestKey) -> Asked | None:
        """None when it never came, or has been forgotten."""

    async def save(self, key: RequestKey, asked: Asked) -> None:
        """Insert or replace."""

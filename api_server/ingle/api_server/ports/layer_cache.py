"""Layers of images that are kept so that the next image need not fetch them."""

from typing import NamedTuple, Protocol


class Pruned(NamedTuple):
    """What was deleted, or would be."""

    blobs: int
    bytes: int


class LayerCache(Protocol):
    """What is in use by a pull stays. One that is not there is empty."""

    async def prune(self, most: int = 0, *, dry_run: bool = False) -> Pruned:
        """Delete the least recently used until what is left takes no more than `most` bytes."""

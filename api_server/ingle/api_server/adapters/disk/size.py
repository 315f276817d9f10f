"""The one rule about sizes that all backends share."""

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.spec import size_text

SECTOR = 512


def check_size(size_bytes: int, least_bytes: int, what: str) -> None:
    """Raise InvalidArgument unless `size_bytes` is a whole number of sectors and not smaller than `what` is now."""
    if size_bytes < least_bytes:
        raise InvalidArgument(
            f"a disk of {size_text(size_bytes)} is smaller than {what}: at least {size_text(least_bytes)} are needed"
        )
    if size_bytes % SECTOR:
        raise InvalidArgument(f"a disk of {size_bytes} bytes is not a multiple of {SECTOR}")


def check_holds(size_bytes: int, base_bytes: int) -> None:
    """Raise InvalidArgument unless a disk of this size can hold what it begins with."""
    check_size(size_bytes, base_bytes, "its image")

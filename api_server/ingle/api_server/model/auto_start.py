"""VMs that are up whenever the host is."""

from ingle.api_server.model.errors import InvalidArgument

NOT_STARTED = 0
LAST = 1000


def check_auto_start(order: int | None) -> None:
    """Raise InvalidArgument unless it can be a VM's turn; NOT_STARTED and None can."""
    if order is not None and not NOT_STARTED <= order <= LAST:
        raise InvalidArgument(
            f"auto_start {order}: 1 to {LAST} is allowed, or 0 for a VM that is not started by itself",
            "--auto-start yes, or --auto-start no",
            field="auto_start",
        )

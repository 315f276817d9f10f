"""What becomes of a VM that nobody uses."""

from ingle.api_server.model.errors import InvalidArgument

NEVER = 0
LONGEST_SECONDS = 10 * 365 * 24 * 3600


def check_after(seconds: int | None, field: str) -> None:
    """Raise InvalidArgument unless something can be done once nobody has used a VM for so long; NEVER and None can."""
    if seconds is not None and not 0 <= seconds <= LONGEST_SECONDS:
        option = f"--{'-'.join(field.split('_'))}"
        raise InvalidArgument(
            f"{field} {seconds} s: up to ten years is allowed, or 0 for never",
            f"{option} 30m, or {option} never",
            field=field,
        )

"""What time it is."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The host's clocks."""

    def now(self) -> datetime:
        """The time of day, UTC, to the microsecond. Somebody may set it, also back."""

    def unix_nanoseconds(self) -> int:
        """The same, as a guest's clock is set by it."""

    def booted_at(self) -> datetime:
        """When the host has started, by its time of day now."""

    def monotonic(self) -> float:
        """Seconds since whenever; it never goes back."""

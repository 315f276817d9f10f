"""Implements ports.clock.Clock."""

import time
from datetime import UTC, datetime, timedelta


class HostClock:
    """The kernel's."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def unix_nanoseconds(self) -> int:
        return time.time_ns()

    def booted_at(self) -> datetime:
        return self.now() - timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))

    def monotonic(self) -> float:
        return time.perf_counter()

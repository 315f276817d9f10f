"""Who may have how much of what there is not enough of for everybody."""


class Shares:
    """`total` places. One asker has `each` at most, and with many askers an equal part. Who has none gets one."""

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._taken: dict[str, int] = {}
        self._sum = 0

    def take(self, asker: str) -> bool:
        """Whether the asker has one more now. If so, `give` must follow."""
        taken = self._taken.get(asker, 0)
        part = min(self._each, self._total // max(1, len(self._taken)))
        if taken and (taken >= part or self._sum >= self._total):
            return False
        self._taken[asker] = taken + 1
        self._sum += 1
        return True

    def give(self, asker: str) -> None:
        """One back."""
        self._sum -= 1
        self._taken[asker] -= 1
        if not self._taken[asker]:
            del self._taken[asker]

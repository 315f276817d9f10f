"""What somebody may have meant who has typed a name that there is not."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

_LONGEST = 64
_COMPARED = 200
"""Comparing takes a tenth of a millisecond each at the worst, in which all others wait; and who has thousands of names
has most of them alike."""

_LOOKED_THROUGH = 10_000


def nearest(typed: str, names: Iterable[str]) -> str:
    """The one of `names` that is most like `typed`; empty where none is, or where that would take long to say. Of very
    many names those are compared that begin alike."""
    if not 0 < len(typed) <= _LONGEST:
        return ""
    # Two texts have less in common than it takes when one is more than twice as long.
    alike = [name for name in islice(names, _LOOKED_THROUGH) if len(typed) <= 2 * len(name) <= 4 * len(typed)]
    alike.sort(key=lambda name: name[:2] != typed[:2])
    close = get_close_matches(typed, alike[:_COMPARED], n=1)
    return close[0] if close else ""

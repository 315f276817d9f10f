"""What is run with --slow alone: of tests that race, the instants that others are as good as."""

from collections.abc import Sequence
from typing import Any

import pytest

slow = pytest.mark.skipif("not config.getoption('--slow')", reason="--slow")
"""In the lab, of what other tests show as well, if not in there: each of its VMs boots for ten seconds."""


def mostly_slow(values: Sequence[Any], *always: Any) -> list[Any]:
    """Parameters of which those in `always` are run each time."""
    assert set(always) <= set(values)
    return [value if value in always else pytest.param(value, marks=slow) for value in values]

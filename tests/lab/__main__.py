"""`python -m lab` makes the lab's disk, unless it is there, before a test waits for it."""

import sys

from lab import disk

disk.cached(lambda text: print(f"lab: {text}", file=sys.stderr, flush=True))  # noqa: T201

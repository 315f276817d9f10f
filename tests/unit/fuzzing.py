"""Feeding parsers what nobody would write: for a second, or for FUZZTIME (see scripts/fuzz.sh)."""

import os
import random
import re
import time
from collections.abc import Iterator, Sequence

_UNITS = {"s": 1, "m": 60, "h": 3600}


def mutations(seeds: Sequence[bytes]) -> Iterator[bytes]:
    """Seeds with bytes changed, cut out, doubled and exchanged, until the time is over."""
    found = re.fullmatch(r"(\d+)([smh])", os.environ.get("FUZZTIME", ""))
    deadline = time.monotonic() + (float(found[1]) * _UNITS[found[2]] if found else 1.0)
    chance = random.Random(0 if found is None else None)
    while time.monotonic() < deadline:
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 8)):
            at = chance.randrange(len(data) + 1)
            size = chance.choice((1, 4, 8, 12, 100, 512, 5000))
            match chance.randrange(6):
                case 0 | 1:
                    data[at : at + 1] = bytes((chance.randrange(256),))
                case 2:
                    del data[at : at + size]
                case 3:
                    data[at:at] = data[at : at + size] * chance.randrange(1, 4)
                case 4:
                    data[at : at + size] = chance.choice((b"9", b"\xff", b"\0", b"7")) * size
                case 5:
                    other = chance.choice(seeds)
                    start = chance.randrange(len(other) + 1)
                    data[at:at] = other[start : start + size]
        yield bytes(data)

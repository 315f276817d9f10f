"""The agent's own benchmarks, in Go: bytes through frames and through a session's ring, beside copying them once."""

import re
import subprocess
from pathlib import Path

from bench.measure import Row, Sample, told_row

_REPOSITORY = Path(__file__).parents[2]
_RESULT = re.compile(r"^Benchmark(\w+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op", re.MULTILINE)
_NAMES = {
    "Write": "Go: frame of 64 KiB encoded",
    "Read": "Go: frame of 64 KiB decoded",
    "Ring": "Go: 64 KiB into a ring",
}


def rows(count: int) -> list[Row]:
    """Durations of one operation, as many averages of each as `count`."""
    argv = [
        str(_REPOSITORY / "scripts/go.sh"),
        *("test", "-C", str(_REPOSITORY / "guest_agent"), "-run", "^$", "-bench", "."),
        *("-benchtime", "50ms", "-count", str(count), "./internal/frame", "./internal/session"),
    ]
    said = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, list[float]] = {}
    for name, nanoseconds in _RESULT.findall(said):
        found.setdefault(name, []).append(float(nanoseconds) / 1e9)
    samples = {name: Sample(tuple(seconds)) for name, seconds in found.items()}
    return [told_row(title, samples[name], "Go: copied once", samples["Copy"]) for name, title in _NAMES.items()]

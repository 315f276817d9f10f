"""The agent's own benchmarks, in Go: bytes through frames, the mux and a session's ring, beside the bare thing."""

import re
import subprocess
from pathlib import Path

from bench.measure import Row, Sample, told_row

_REPOSITORY = Path(__file__).parents[2]
_RESULT = re.compile(r"^Benchmark(\w+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op", re.MULTILINE)
_COPIED, _SENT = ("Copy", "Go: copied once"), ("Socket", "Go: through a bare socket")
_NAMES = {
    "Write": ("Go: frame of 64 KiB encoded", _COPIED),
    "Read": ("Go: frame of 64 KiB decoded", _COPIED),
    "Ring": ("Go: 64 KiB into a ring", _COPIED),
    "MuxOut": ("Go: 64 KiB out of the agent through the mux", _SENT),
    "MuxIn": ("Go: 64 KiB into the agent through the mux", _SENT),
}


def rows(count: int) -> list[Row]:
    """Durations of one operation, as many averages of each as `count`."""
    argv = [
        str(_REPOSITORY / "scripts/go.sh"),
        *("test", "-C", str(_REPOSITORY / "guest_agent"), "-run", "^$", "-bench", "."),
        *("-benchtime", "50ms", "-count", str(count), "./internal/frame", "./internal/mux", "./internal/session"),
    ]
    said = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, list[float]] = {}
    for name, nanoseconds in _RESULT.findall(said):
        found.setdefault(name, []).append(float(nanoseconds) / 1e9)
    samples = {name: Sample(tuple(seconds)) for name, seconds in found.items()}
    return [told_row(title, samples[name], beside, samples[floor]) for name, (title, (floor, beside)) in _NAMES.items()]

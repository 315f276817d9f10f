"""Percentiles, and the table that every benchmark prints: a figure, its floor from the same run, and their ratio."""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HEADER = f"{'':44}{'n':>5}{'p50':>11}{'p95':>11}{'p99':>11}   verdict (target)"


@dataclass(frozen=True, slots=True)
class Sample:
    """Durations in seconds."""

    seconds: tuple[float, ...]

    def percentile(self, p: float) -> float:
        """Nearest rank."""
        ranked = sorted(self.seconds)
        return ranked[max(0, math.ceil(p / 100 * len(ranked)) - 1)]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that is no duration. `most` is what is aimed at; None: it is just told."""

    name: str
    value: float
    unit: str
    most: float | None = None

    def __str__(self) -> str:
        target = "" if self.most is None else f" ({_met(self.value <= self.most)}: <= {self.most:g})"
        return f"{self.name}: {self.value:.1f} {self.unit}{target}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what was measured, beside what it can't be faster than. `target` says what is aimed at."""

    name: str
    sample: Sample
    floor_name: str
    floor: Sample
    target: str
    verdict: str

    def __str__(self) -> str:
        target = f" ({self.target})" if self.target else ""
        above = f"{_line(self.name, self.sample)}   {self.verdict}{target}"
        return f"{above}\n{_line(f'  floor: {self.floor_name}', self.floor)}"


def timed(work: Callable[[], object]) -> float:
    """Seconds that one call took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class ProcessorTime:
    """What some processes work while something is done. Other work of the machine lengthens that little."""

    def __init__(self, *pids: int) -> None:
        # The clock of another process, as clock_getcpuclockid(3) makes it.
        self._clocks = [~pid << 3 | 2 for pid in pids]
        self._seconds: list[float] = []

    def of(self, work: Callable[[], float]) -> Callable[[], float]:
        """The same work, counted."""

        def counted() -> float:
            before = self._now()
            took = work()
            self._seconds.append(self._now() - before)
            return took

        return counted

    def sample(self) -> Sample:
        """All but the first time, as `alternately` has it."""
        return Sample(tuple(self._seconds[1:]))

    def _now(self) -> float:
        return sum(map(time.clock_gettime, self._clocks))


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def alternately(count: int, work: Callable[[], float], floor: Callable[[], float]) -> tuple[Sample, Sample]:
    """Both in turn, `count` times, after one turn that does not count: drift of the machine hits both alike."""
    work(), floor()
    pairs = [(work(), floor()) for _ in range(count)]
    return Sample(tuple(pair[0] for pair in pairs)), Sample(tuple(pair[1] for pair in pairs))


def ratio_row(name: str, sample: Sample, floor_name: str, floor: Sample, most: float) -> Row:
    """A figure whose median may be `most` times its floor's."""
    ratio = sample.percentile(50) / floor.percentile(50)
    verdict = f"{_met(ratio <= most)}: {ratio:.2f} x"
    return Row(name, sample, floor_name, floor, f"p50 <= {most:g} x floor", verdict)


def sum_row(name: str, sample: Sample, floor_name: str, floor: Sample, times: float, seconds: float) -> Row:
    """A figure whose median may be `times` its floor's and `seconds` more."""
    most = times * floor.percentile(50) + seconds
    verdict = f"{_met(sample.percentile(50) <= most)}: {most * 1000:.2f} ms allowed"
    return Row(name, sample, floor_name, floor, f"p50 <= {times:g} x floor + {seconds * 1000:g} ms", verdict)


def difference_row(name: str, sample: Sample, floor_name: str, floor: Sample, most: float) -> Row:
    """A figure whose median may be `most` seconds above its floor's."""
    difference = sample.percentile(50) - floor.percentile(50)
    verdict = f"{_met(difference <= most)}: {difference * 1000:+.2f} ms"
    return Row(name, sample, floor_name, floor, f"p50 <= floor + {most * 1000:g} ms", verdict)


def absolute_row(name: str, sample: Sample, floor_name: str, floor: Sample, most: float) -> Row:
    """A figure whose 99th percentile may be `most` seconds."""
    p99 = sample.percentile(99)
    verdict = f"{_met(p99 <= most)}: {p99 * 1000:.2f} ms"
    return Row(name, sample, floor_name, floor, f"p99 <= {most * 1000:g} ms", verdict)


def spread_row(name: str, sample: Sample, floor_name: str, floor: Sample, most: float, most_spread: float) -> Row:
    """A figure whose median may be `most` times its floor's, and its 99th percentile `most_spread` times its median."""
    ratio = sample.percentile(50) / floor.percentile(50)
    spread = sample.percentile(99) / sample.percentile(50)
    verdict = f"{_met(ratio <= most)}: {ratio:.2f} x; {_met(spread <= most_spread)}: p99 = {spread:.2f} x p50"
    return Row(name, sample, floor_name, floor, f"p50 <= {most:g} x floor, p99 <= {most_spread:g} x p50", verdict)


def share_row(name: str, sample: Sample, floor_name: str, floor: Sample, size: int, least: float) -> Row:
    """A transfer of `size` bytes that shall have `least` of its floor's speed."""
    share = floor.percentile(50) / sample.percentile(50)
    speed = size / sample.percentile(50) / 2**20
    verdict = f"{_met(share >= least)}: {share:.0%}, {speed:.0f} MiB/s"
    return Row(name, sample, floor_name, floor, f"speed >= {least:.0%} of floor", verdict)


def told_row(name: str, sample: Sample, floor_name: str, floor: Sample) -> Row:
    """A figure without a target."""
    return Row(name, sample, floor_name, floor, "", f"{sample.percentile(50) / floor.percentile(50):.2f} x")


def table(rows: Sequence[Row]) -> str:
    """Milliseconds, in columns."""
    return "\n".join((HEADER, *map(str, rows)))


def write_json(path: Path, rows: Sequence[Row], figures: Sequence[Figure] = ()) -> None:
    """The table and the figures for programs; durations in seconds."""
    document = {
        "rows": [
            {
                "name": row.name,
                **_percentiles(row.sample),
                "floor": {"name": row.floor_name, **_percentiles(row.floor)},
                "target": row.target,
                "verdict": row.verdict,
            }
            for row in rows
        ],
        "figures": [asdict(figure) for figure in figures],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def _percentiles(sample: Sample) -> dict[str, float]:
    return {"n": len(sample.seconds), **{f"p{p}": sample.percentile(p) for p in (50, 95, 99)}}


def _met(condition: bool) -> str:
    return "met" if condition else "MISSED"


def _line(name: str, sample: Sample) -> str:
    figures = "".join(f"{sample.percentile(p) * 1000:11.3f}" for p in (50, 95, 99))
    return f"{name:44}{len(sample.seconds):>5}{figures}"

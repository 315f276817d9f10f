"""Percentiles, and the table that every benchmark prints: a figure, its floor from the same run, and their ratio."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """Durations in seconds."""

    seconds: tuple[float, ...]

    def percentile(self, p: float) -> float:
        """Nearest rank."""
        ranked = sorted(self.seconds)
        return ranked[max(0, math.ceil(p / 100 * len(ranked)) - 1)]


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what was measured, beside what it can't be faster than. `target` says what is aimed at."""

    name: str
    sample: Sample
    floor_name: str
    floor: Sample
    target: str
    verdict: str


def timed(work: Callable[[], object]) -> float:
    """Seconds that one call took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def alternately(count: int, work: Callable[[], float], floor: Callable[[], float]) -> tuple[Sample, Sample]:
    """Both in turn, `count` times, after one turn that does not count: drift of the machine hits both alike."""
    work(), floor()
    pairs = [(work(), floor()) for _ in range(count)]
    return Sample(tuple(pair[0] for pair in pairs)), Sample(tuple(pair[1] for pair in pairs))


def ratio_row(name: str, sample: Sample, floor_name: str, floor: Sample, most: float) -> Row:
    """A figure whose median may be `most` times its floor's."""
    ratio = sample.percentile(50) / floor.percentile(50)
    verdict = f"{'met' if ratio <= most else 'MISSED'}: {ratio:.2f} x"
    return Row(name, sample, floor_name, floor, f"p50 <= {most:g} x floor", verdict)


def difference_row(name: str, sample: Sample, floor_name: str, floor: Sample, most: float) -> Row:
    """A figure whose median may be `most` seconds above its floor's."""
    difference = sample.percentile(50) - floor.percentile(50)
    verdict = f"{'met' if difference <= most else 'MISSED'}: {difference * 1000:+.2f} ms"
    return Row(name, sample, floor_name, floor, f"p50 <= floor + {most * 1000:g} ms", verdict)


def absolute_row(name: str, sample: Sample, floor_name: str, floor: Sample, most: float) -> Row:
    """A figure whose 99th percentile may be `most` seconds."""
    p99 = sample.percentile(99)
    verdict = f"{'met' if p99 <= most else 'MISSED'}: {p99 * 1000:.2f} ms"
    return Row(name, sample, floor_name, floor, f"p99 <= {most * 1000:g} ms", verdict)


def told_row(name: str, sample: Sample, floor_name: str, floor: Sample) -> Row:
    """A figure without a target."""
    return Row(name, sample, floor_name, floor, "", f"{sample.percentile(50) / floor.percentile(50):.2f} x")


def table(rows: Sequence[Row]) -> str:
    """Milliseconds, in columns."""
    lines = [f"{'':34}{'n':>4}{'p50':>10}{'p95':>10}{'p99':>10}   verdict (target)"]
    for row in rows:
        target = f" ({row.target})" if row.target else ""
        lines.append(_line(row.name, row.sample) + f"   {row.verdict}{target}")
        lines.append(_line(f"  floor: {row.floor_name}", row.floor))
    return "\n".join(lines)


def _line(name: str, sample: Sample) -> str:
    figures = "".join(f"{sample.percentile(p) * 1000:10.2f}" for p in (50, 95, 99))
    return f"{name:34}{len(sample.seconds):>4}{figures}"

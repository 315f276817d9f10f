"""The agent beside the least one that Go makes (floor_agent), by the same client on the same kind of socket."""

import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.bare_client import BareClient, exec_true, read_file, write_file
from bench.measure import Row, Sample, alternately, told_row

_REPOSITORY = Path(__file__).parents[2]
_SOURCE = Path(__file__).parent / "floor_agent" / "main.go"
_RUN, _WRITE, _READ = 1, 2, 3
_FLOOR = "the least agent in Go"
_CONTENT = bytes(1024)


def rows(agent: Path, directory: Path, in_memory: Path, count: int) -> Iterator[Row]:
    """What is small, `count` times: files both in a directory of the disk and in one that is none."""
    with _floor_agent(directory) as floor:
        pairs = [("exec true", count, exec_true(agent), _ask(floor, _RUN, b"true"))]
        for place, where in (("on the disk", directory), ("in memory", in_memory)):
            ours, theirs = where / "ours", where / "theirs"
            pairs += [
                (
                    f"1 KiB written {place}",
                    count,
                    write_file(agent, ours, _CONTENT),
                    _ask(floor, _WRITE, bytes(theirs) + b"\0" + _CONTENT),
                ),
                (f"1 KiB read {place}", count, read_file(agent, ours), _ask(floor, _READ, bytes(theirs))),
            ]
        for name, times, subject, bare in pairs:
            yield told_row(f"{name}, no parsing", *_turns(times, subject, bare, 1))
        subject, bare = pairs[0][2:]
        yield told_row("10 execs at once, no parsing", *_turns(count // 5, subject, bare, 10))


def _turns(times: int, subject: BareClient, bare: BareClient, callers: int) -> tuple[Sample, str, Sample]:
    ours, floor = alternately(times, lambda: subject.ask_at_once(callers), lambda: bare.ask_at_once(callers))
    return ours, _FLOOR, floor


def _ask(path: Path, what: int, payload: bytes) -> BareClient:
    return BareClient(path, struct.pack(">IB", len(payload) + 1, what) + payload, what)


@contextmanager
def _floor_agent(directory: Path) -> Iterator[Path]:
    program, path = directory / "floor_agent", directory / "floor.sock"
    build = [str(_REPOSITORY / "scripts/go.sh"), "build", "-o", str(program), str(_SOURCE)]
    subprocess.run(build, check=True)
    with subprocess.Popen([program, path], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield path
        finally:
            process.kill()

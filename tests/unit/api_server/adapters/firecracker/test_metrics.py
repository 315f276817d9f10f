"""What Firecracker counts, and what one might write that a guest has taken over."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingle.api_server.adapters.firecracker import metrics
from ingle.api_server.adapters.firecracker.metrics import Metrics
from ingle.api_server.ports.engine import DiskTraffic

PIPE_BYTES = 1 << 16
NOTHING = DiskTraffic(0, 0, 0, 0)


def line(reads: object, read_bytes: object, writes: object, written: object) -> bytes:
    block = {"read_count": reads, "read_bytes": read_bytes, "write_count": writes, "write_bytes": written}
    return json.dumps({"utc_timestamp_ms": 1, "block_root": block | {"flush_count": 3}, "block": {}}).encode() + b"\n"


def fill(writer: int, content: bytes) -> int:
    """Write it until there is no room; how many bytes."""
    written = 0
    try:
        while True:
            written += os.write(writer, content)
    except BlockingIOError:
        return written


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "metrics"
    metrics.make(path)
    return path


@pytest.fixture
def writer(pipe: Path) -> Iterator[int]:
    """As Firecracker has it: both ends, and it waits for nobody."""
    descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def reader(pipe: Path, writer: int) -> Iterator[Metrics]:
    opened = metrics.opened(pipe)
    assert opened is not None
    yield opened
    opened.close()


def test_lines_are_added_up_however_they_come(reader: Metrics, writer: int) -> None:
    reader.take()
    assert reader.disk == NOTHING
    os.write(writer, line(1, 512, 2, 1024) + line(3, 4096, 0, 0)[:20])
    reader.take()
    assert reader.disk == DiskTraffic(1, 512, 2, 1024)
    os.write(writer, line(3, 4096, 0, 0)[20:])
    reader.take()
    assert reader.disk == DiskTraffic(4, 4608, 2, 1024)


def test_what_was_written_before_anybody_read_is_counted(pipe: Path, writer: int) -> None:
    os.write(writer, line(1, 2, 3, 4))
    late = metrics.opened(pipe)
    assert late is not None
    late.take()
    late.close()
    assert late.disk == DiskTraffic(1, 2, 3, 4)


NO_NUMBERS: tuple[object, ...] = (-1, 1.5, "1", True, None, {})
RUBBISH = (b"", b"x", b"[]", b"null", b"{}", b'{"block_root": 7}', b'{"block_root": {"read_count": 1}}', b"[" * 50_000)


@pytest.mark.parametrize(
    "rubbish",
    [
        *RUBBISH,
        *(line(number, 1, 1, 1).strip() for number in NO_NUMBERS),
        b'{"block_root": {"read_count": ' + b"9" * 10_000 + b"}}",
        line(1, 1, 1, 1)[:-9],
    ],
    ids=lambda text: text[:40].decode(),
)
def test_a_line_that_is_none_counts_nothing_and_the_next_does(reader: Metrics, writer: int, rubbish: bytes) -> None:
    os.write(writer, rubbish + b"\n" + line(1, 2, 3, 4))
    reader.take()
    assert reader.disk == DiskTraffic(1, 2, 3, 4)


def test_who_writes_without_end_takes_neither_memory_nor_numbers_that_nobody_can_tell(
    reader: Metrics, writer: int
) -> None:
    for _ in range(20):
        fill(writer, b"x" * 4096)
        reader.take()
    assert len(reader._line) <= PIPE_BYTES
    os.write(writer, b"\n" + 2 * line(2**64 - 2, 1, 1, 1))
    reader.take()
    assert reader.disk == DiskTraffic(2**64 - 1, 2, 2, 2)


def test_what_nobody_reads_takes_no_more_than_a_pipe(writer: int) -> None:
    assert 0 < fill(writer, line(1, 2, 3, 4)) <= PIPE_BYTES


def test_what_is_no_pipe_is_not_read(tmp_path: Path) -> None:
    assert metrics.opened(tmp_path / "absent") is None
    (tmp_path / "file").write_bytes(line(1, 2, 3, 4))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert [metrics.opened(tmp_path / name) for name in ("file", "link")] == [None, None]


def test_a_new_one_takes_the_place_of_what_was_there(pipe: Path, writer: int) -> None:
    metrics.make(pipe)
    os.write(writer, line(1, 2, 3, 4))
    other = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    fresh = metrics.opened(pipe)
    assert fresh is not None
    fresh.take()
    assert (fresh.disk, pipe.stat().st_mode & 0o777) == (NOTHING, 0o600)
    fresh.close()
    os.close(other)

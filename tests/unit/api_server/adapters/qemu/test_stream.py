"""A saved guest is taken apart into its memory and all the rest."""

import os
import random
from collections.abc import Sequence
from pathlib import Path
from struct import pack

import pytest

from ingle.api_server.adapters.qemu.stream import MAGIC, PAGE, UnknownStream, split
from ingle.api_server.host.threads import Stop, Stopped

ZERO, CONTENT, SAME_BLOCK = 2, 8, 0x20
PAGES = 600
DEVICES = b"\x04" + b"all devices" * 100
FOOTER = b"\x7e" + pack(">I", 2)
FULL = bytes(range(256)) * (PAGE // 256)


def name(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def page(offset: int, content: bytes, block: str = "") -> bytes:
    """Of the same block as the one before, if none is given."""
    flags = (CONTENT if len(content) == PAGE else ZERO) | (0 if block else SAME_BLOCK)
    return pack(">Q", offset | flags) + (name(block) if block else b"") + content


def stream(*sections: bytes, sizes: Sequence[tuple[str, int]] = (("ram", PAGES * PAGE), ("rom", PAGE))) -> bytes:
    """With these sections of pages, of which the last is the end."""
    told = pack(">Q", sum(size for _, size in sizes) | 4)
    told += b"".join(name(block) + pack(">Q", size) for block, size in sizes) + pack(">Q", 0x10)
    start = b"\x01" + pack(">I", 2) + name("ram") + pack(">II", 0, 4) + told + FOOTER
    kinds = [2] * (len(sections) - 1) + [3]
    pages = [
        bytes([kind]) + pack(">I", 2) + section + pack(">Q", 0x10) + FOOTER
        for kind, section in zip(kinds, sections, strict=True)
    ]
    return MAGIC + b"\x07" + pack(">I", 7) + b"machine" + start + b"".join(pages) + DEVICES


WHOLE = stream(
    page(0, FULL, "ram") + page(PAGE, b"\0") + page(0, b"a rom".ljust(PAGE), "rom") + page(2 * PAGE, FULL, "ram"),
    b"".join(page(number * PAGE, bytes([number % 251 + 1]) * PAGE) for number in range(3, PAGES)),
    page(5 * PAGE, b"\0"),
)


def apart(directory: Path, whole: bytes, stop: Stop | None = None) -> tuple[bytes, bytes]:
    """The memory, and the rest."""
    (directory / "stream").write_bytes(whole)
    with open(directory / "stream", "rb") as source, open(directory / "ram", "wb") as ram:
        os.ftruncate(ram.fileno(), PAGES * PAGE)
        with open(directory / "state", "wb") as state:
            split(stop or Stop(), source.fileno(), ram.fileno(), state.fileno(), "ram")
    return (directory / "ram").read_bytes(), (directory / "state").read_bytes()


def test_each_page_comes_to_its_place(tmp_path: Path) -> None:
    ram, _ = apart(tmp_path, WHOLE)
    expected = [FULL, bytes(PAGE), FULL, *(bytes([number % 251 + 1]) * PAGE for number in range(3, PAGES))]
    expected[5] = bytes(PAGE)  # what came last holds
    assert ram == b"".join(expected)


def test_what_is_not_the_memorys_goes_into_a_stream_for_whom_that_is_a_file(tmp_path: Path) -> None:
    _, state = apart(tmp_path, WHOLE)
    assert state.startswith(MAGIC + b"\x07" + pack(">I", 7) + b"machine\x05" + name("configuration/capabilities"))
    assert name("x-ignore-shared") in state
    assert name("ram") + pack(">QQ", PAGES * PAGE, 0) + name("rom") + pack(">QQ", PAGE, 0) in state
    assert page(0, b"a rom".ljust(PAGE), "rom") in state
    assert FULL not in state
    assert state.endswith(DEVICES)


def test_a_memory_that_is_half_empty_is_a_sparse_file(tmp_path: Path) -> None:
    apart(tmp_path, stream(page(0, FULL, "ram") + b"".join(page(n * PAGE, b"\0") for n in range(1, PAGES))))
    assert (tmp_path / "ram").stat().st_blocks * 512 < PAGES * PAGE // 2


@pytest.mark.parametrize(
    "whole",
    [
        b"another file",
        stream(page(0, FULL, "ram"), sizes=(("rom", PAGE),)),
        stream(page(0, FULL, "ram"), sizes=(("ram", PAGE),)),
        stream(page(PAGES * PAGE, FULL, "ram")),
        stream(page(PAGES * PAGE, b"\0", "ram")),
        stream(page(0, b"\1", "ram")),
        stream(pack(">Q", 0x40) + name("ram")),
        WHOLE[: -len(DEVICES) - 3],
        WHOLE[:100],
        WHOLE.replace(b"machine", b"machine\x05" + name("configuration/uuid")),
    ],
)
def test_what_is_not_as_it_is_known_is_refused(tmp_path: Path, whole: bytes) -> None:
    with pytest.raises(UnknownStream):
        apart(tmp_path, whole)


def test_whatever_it_is_it_is_taken_apart_or_refused(tmp_path: Path) -> None:
    draw = random.Random(3)
    short = stream(page(0, FULL, "ram") + page(PAGE, b"\0"), page(2 * PAGE, FULL))
    for _ in range(100):
        damaged = bytearray(short)
        for _ in range(draw.randrange(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        end = draw.choice([len(damaged), draw.randrange(len(damaged))])
        try:
            ram, _ = apart(tmp_path, bytes(damaged[:end]))
        except UnknownStream:
            continue
        assert len(ram) == PAGES * PAGE


def test_it_ends_when_it_is_told(tmp_path: Path) -> None:
    stop = Stop()
    stop.ask()
    many = page(0, FULL, "ram") + b"".join(page(n % PAGES * PAGE, b"\0") for n in range(5000))
    with pytest.raises(Stopped):
        apart(tmp_path, stream(many), stop)


def test_a_page_is_whole_though_the_kernel_takes_little_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, pwrite = apart(tmp_path, WHOLE), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, offset: pwrite(file, content[:100_001], offset))
    assert apart(tmp_path, WHOLE) == whole

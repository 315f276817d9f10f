"""Compressed input: every format, whole, cut short, damaged, or followed by something else."""

import bz2
import gzip
import io
import lzma
import random
import struct
from collections.abc import Callable, Mapping

import lz4.block  # type: ignore[import-untyped]
import lz4.frame  # type: ignore[import-untyped]
import pytest
import zstandard

from ingle.api_server.host.compression import CHUNK, Corrupt, Unsupported, decompressed

CONTENT = random.Random(1).randbytes(300_000) + bytes(12_000_000) + b"the end"


def lz4_legacy(data: bytes) -> bytes:
    """As `lz4 -l` and the kernel's build make it: a magic number, then blocks of 8 MiB."""
    out = [struct.pack("<I", 0x184C2102)]
    for start in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[start : start + (8 << 20)], store_size=False)
        out += [struct.pack("<I", len(block)), block]
    return b"".join(out)


FORMATS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
    "lz4-legacy": lz4_legacy,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}
SELF_ENDING = [name for name in FORMATS if name != "lz4-legacy"]


def read(data: bytes) -> bytes:
    return b"".join(decompressed(io.BytesIO(data)))


@pytest.mark.parametrize("name", FORMATS)
def test_content_comes_back(name: str) -> None:
    assert read(FORMATS[name](CONTENT)) == CONTENT


@pytest.mark.parametrize("name", SELF_ENDING)
def test_what_follows_is_ignored(name: str) -> None:
    """A kernel's payload is followed by its size."""
    assert read(FORMATS[name](CONTENT) + struct.pack("<I", len(CONTENT))) == CONTENT


def test_the_size_after_a_legacy_lz4_payload_is_ignored() -> None:
    assert read(lz4_legacy(CONTENT) + struct.pack("<I", len(CONTENT))) == CONTENT


@pytest.mark.parametrize("name", SELF_ENDING)
def test_several_members_are_one_content(name: str) -> None:
    """As parallel compressors write them."""
    assert read(FORMATS[name](b"one") + FORMATS[name](b"two")) == b"onetwo"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("cut", [5, 1000])
def test_truncation_is_noticed(name: str, cut: int) -> None:
    with pytest.raises(Corrupt, match=name.partition("-")[0]):
        read(FORMATS[name](CONTENT)[:-cut])


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "lz4", "zstd"])
def test_damage_is_noticed_by_formats_with_a_checksum(name: str) -> None:
    data = bytearray(FORMATS[name](CONTENT))
    data[150_000] ^= 0xFF
    with pytest.raises(Corrupt):
        read(bytes(data))


def test_plain_data_is_itself() -> None:
    assert read(b"plain") == b"plain"
    assert read(b"") == b""


def test_reading_starts_at_the_present_position() -> None:
    file = io.BytesIO(b"skip" + gzip.compress(b"this"))
    file.seek(4)
    assert b"".join(decompressed(file)) == b"this"


def test_lzo_is_known_but_not_supported() -> None:
    with pytest.raises(Unsupported, match="lzo compression is not supported; use gzip"):
        read(b"\x89LZO\0\r\n\x1a\n" + bytes(100))


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "lz4", "zstd"])
def test_a_bomb_comes_in_small_pieces(name: str) -> None:
    bomb = FORMATS[name](bytes(100 << 20))
    assert max(len(piece) for piece in decompressed(io.BytesIO(bomb))) <= 70 * CHUNK

"""Small kernels, made up byte by byte: enough of one for ingle, not for a machine."""

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable, Mapping

import lz4.block  # type: ignore[import-untyped]
import zstandard

from ingle.testing.made_up import OTHER_NOTE, PVH_NOTE, RELEASE, VMLINUX, elf

__all__ = ["OTHER_NOTE", "PVH_NOTE", "RELEASE", "VMLINUX", "elf"]


def _lz4_legacy(data: bytes) -> bytes:
    block: bytes = lz4.block.compress(data, store_size=False)
    return struct.pack("<II", 0x184C2102, len(block)) + block


def _sized(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """As the kernel's build appends the size; gzip's own trailer has it already."""
    return lambda data: compress(data) + struct.pack("<I", len(data))


PAYLOADS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": _sized(bz2.compress),
    "lzma": _sized(lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE)),
    "xz": _sized(lambda data: lzma.compress(data, check=lzma.CHECK_CRC32)),
    "lz4": _sized(_lz4_legacy),
    "zstd": _sized(zstandard.compress),
}


def bz_image(payload: bytes, *, setup_sectors: int = 27, protocol: int = 0x020F, before_payload: int = 0x2CD) -> bytes:
    """A bzImage around a compressed payload."""
    setup = bytearray(((setup_sectors or 4) + 1) * 512)
    setup[0x1F1] = setup_sectors
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x202:0x206] = b"HdrS"
    setup[0x206:0x208] = struct.pack("<H", protocol)
    setup[0x248:0x250] = struct.pack("<II", before_payload, len(payload))
    return bytes(setup) + bytes(before_payload) + payload + b"what follows: page tables, a checksum, a signature"

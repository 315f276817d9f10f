"""Small kernels, made up byte by byte: enough of one for ingle, not for a machine."""

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable, Mapping

import lz4.block  # type: ignore[import-untyped]
import zstandard

RELEASE = "6.1.0-99-made-up"

PVH_NOTE = struct.pack("<III", 4, 8, 18) + b"Xen\0" + struct.pack("<Q", 0x1000000)
OTHER_NOTE = struct.pack("<III", 6, 3, 1) + b"Linux\0\0\0" + b"abc\0"

_HEADERS = 64 + 2 * 56
_NOTES_AT = 0x200
_TEXT_AT = 0x1000


def elf(
    *,
    notes: bytes = OTHER_NOTE + PVH_NOTE,
    text: bytes = f"\0Linux version {RELEASE} (made@up) #1 SMP\n\0".encode(),
    ident: bytes = b"\x7fELF\2\1\1",
    kind: int = 2,
    machine: int = 62,
) -> bytes:
    """An ELF with one segment to load, one of notes, and a section header table at its end."""
    text = text.ljust(5000, b"\x90")
    sections_at = _TEXT_AT + len(text)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(ident.ljust(16, b"\0"), kind, machine, 1, 0x1000000, 64, sections_at, 0, 64, 56, 2, 64, 3, 2),
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, _TEXT_AT, 0x1000000, 0x1000000, len(text), len(text), 0x1000)
    note = struct.pack("<IIQQQQQQ", 4, 4, _NOTES_AT, 0, 0, len(notes), len(notes), 4)
    front = (header + load + note).ljust(_NOTES_AT, b"\0") + notes
    return front.ljust(_TEXT_AT, b"\0") + text + bytes(3 * 64)


VMLINUX = elf()


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

"""What a vmlinux must be for a VMM to boot it, checked without trusting a byte of it.

Format: elf(5). The PVH entry point is the ELF note that Xen defines in xen/include/public/elfnote.h; it is the one way
into an uncompressed kernel that QEMU knows.
"""

import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingle.api_server.model.errors import BadFile, Reason

MAGIC = b"\x7fELF"

# e_ident's class, data and version: 64 bits, little-endian, current.
_IDENT = MAGIC + b"\2\1\1"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_ET_EXEC, _ET_DYN = 2, 3
_EM_X86_64 = 62
_PT_LOAD, _PT_NOTE = 1, 4
_XEN_ELFNOTE_PHYS32_ENTRY = 18

# It becomes a file's name and part of command lines: neither a '/' nor a '-' at its beginning.
_RELEASE = re.compile(rb"Linux version ([0-9A-Za-z][0-9A-Za-z._+~-]{0,63}) ")


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    size: int


def release_of(vmlinux: Path) -> str:
    """What `uname -r` will print under this kernel.

    Raises BadFile(KERNEL_INVALID) unless it is a complete x86-64 Linux ELF with a PVH entry point."""
    if vmlinux.stat().st_size < _HEADER.size:
        raise _bad("it is too short for an ELF file")
    with open(vmlinux, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        segments = list(_segments(data))
        if not any(segment.kind == _PT_LOAD and segment.size for segment in segments):
            raise _bad("it has nothing to load")
        if not any(_has_pvh_entry(data[s.offset : s.offset + s.size]) for s in segments if s.kind == _PT_NOTE):
            raise _bad("it has no PVH entry point; it must be built with CONFIG_PVH=y")
        release = _RELEASE.search(data)
        if release is None:
            raise _bad("it is not a Linux kernel")
        return release[1].decode("ascii")


def _segments(data: mmap.mmap) -> Iterator[_Segment]:
    (
        ident,
        kind,
        machine,
        _,
        _,
        programs,
        sections,
        _,
        _,
        program_size,
        program_count,
        section_size,
        section_count,
        _,
    ) = _HEADER.unpack_from(data)
    if not ident.startswith(_IDENT) or machine != _EM_X86_64 or kind not in (_ET_EXEC, _ET_DYN):
        raise _bad("it is not a 64-bit x86 ELF executable")
    if program_size != _PROGRAM_HEADER.size:
        raise _bad("its program headers have a wrong size")
    _check_inside(data, programs, program_size * program_count)
    _check_inside(data, sections, section_size * section_count)
    for index in range(program_count):
        segment_kind, _, offset, _, _, size, _, _ = _PROGRAM_HEADER.unpack_from(data, programs + index * program_size)
        _check_inside(data, offset, size)
        yield _Segment(segment_kind, offset, size)


def _check_inside(data: mmap.mmap, offset: int, size: int) -> None:
    if offset + size > len(data):
        raise _bad(f"it is truncated: it ends at byte {len(data)} and should have {offset + size} at least")


def _has_pvh_entry(notes: bytes) -> bool:
    offset = 0
    while offset + _NOTE.size <= len(notes):
        name_size, description_size, kind = _NOTE.unpack_from(notes, offset)
        name = offset + _NOTE.size
        if kind == _XEN_ELFNOTE_PHYS32_ENTRY and notes[name : name + name_size] == b"Xen\0":
            return True
        offset = name + _aligned(name_size) + _aligned(description_size)
    return False


def _aligned(size: int) -> int:
    return (size + 3) & ~3


def _bad(why: str) -> BadFile:
    return BadFile(Reason.KERNEL_INVALID, f"the kernel can't be used: {why}")

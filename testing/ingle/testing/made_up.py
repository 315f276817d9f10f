"""An image and a kernel, made up: enough of one for a server, not for a machine."""

import io
import struct
import tarfile

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


def root_file_system() -> bytes:
    """A tar with a file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        text = b"made up\n"
        file = tarfile.TarInfo("etc/motd")
        file.size = len(text)
        tar.addfile(file, io.BytesIO(text))
    return buffer.getvalue()

"""From a kernel file, as distributions and builds have them, to the vmlinux inside.

A bzImage is real-mode code, a header, and a compressed vmlinux. Format: the kernel's Documentation/arch/x86/boot.rst,
"The Real-Mode Kernel Header"; offsets below are its.
"""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

from ingle.api_server.adapters.kernel import elf
from ingle.api_server.host import compression, files
from ingle.api_server.model.errors import BadFile, Reason

_SECTOR = 512
_HEADER_END = 0x268
_SETUP_SECTORS = 0x1F1
_BOOT_FLAG = 0x1FE
_SIGNATURE = 0x202
_PROTOCOL = 0x206
_PAYLOAD_OFFSET = 0x248
_PAYLOAD_LENGTH = 0x24C

# The first with payload_offset and payload_length (Linux 2.6.26).
_LEAST_PROTOCOL = 0x0208

# The largest distribution kernels have 100 MiB; what pretends to be several times that is not one.
_LARGEST = 512 << 20

_ALLOWED = "a vmlinux, plain or compressed, or a bzImage"


def extract(kernel: Path, vmlinux: Path) -> None:
    """Write the uncompressed ELF of `kernel` (a vmlinux, plain or compressed, or a bzImage) to the new file `vmlinux`.

    Raises BadFile(KERNEL_INVALID), HostProblem(DISK_FULL). A failure leaves no file."""
    try:
        if kernel.stat().st_size > _LARGEST:
            raise _bad(f"the file has more than {_LARGEST >> 20} MiB")
        with open(kernel, "rb") as source, files.new_file(vmlinux, 0o644) as target:
            _write(target, _vmlinux(source))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise _bad(f"{kernel}: {error.strerror}") from error
    except compression.Corrupt as error:
        raise _bad(str(error)) from error
    except compression.Unsupported as error:
        raise _bad(str(error), "extract-vmlinux KERNEL > vmlinux") from error


def _vmlinux(source: io.BufferedReader) -> Iterator[bytes]:
    head = source.read(_HEADER_END)
    source.seek(0)
    if head.startswith(elf.MAGIC) or compression.compression_of(head) is not None:
        return compression.decompressed(source)
    if head[_SIGNATURE : _SIGNATURE + 4] == b"HdrS" and head[_BOOT_FLAG : _BOOT_FLAG + 2] == b"\x55\xaa":
        return _payload_content(_payload(source.read(), head))
    raise _bad(f"the file is not {_ALLOWED}")


def _payload(image: bytes, head: bytes) -> bytes:
    if len(head) < _HEADER_END:
        raise _bad("the bzImage is truncated within its header")
    (protocol,) = struct.unpack_from("<H", head, _PROTOCOL)
    if protocol < _LEAST_PROTOCOL:
        raise _bad(
            f"boot protocol {protocol >> 8}.{protocol & 0xFF:02} is too old; 2.08 (Linux 2.6.26) or later is needed"
        )
    offset, length = struct.unpack_from("<II", head, _PAYLOAD_OFFSET)
    setup_sectors = head[_SETUP_SECTORS] or 4  # 0 means 4, "for backwards compatibility"
    start = (setup_sectors + 1) * _SECTOR + offset
    if start + length > len(image):
        raise _bad(f"the bzImage is truncated: it has {len(image)} bytes and should have {start + length} at least")
    return image[start : start + length]


def _payload_content(payload: bytes) -> Iterator[bytes]:
    """The vmlinux. The payload's last 4 bytes are its size, whichever the compression, gzip's own trailer included."""
    if compression.compression_of(payload[: compression.MAGIC_LENGTH]) is None:
        raise _bad("the bzImage's payload has no compression that Linux uses")
    written = 0
    for chunk in compression.decompressed(io.BytesIO(payload)):
        written += len(chunk)
        yield chunk
    (expected,) = struct.unpack("<I", payload[-4:])
    if written != expected:
        raise _bad(f"the bzImage is corrupt: its payload has {written} bytes and should have {expected}")


def _write(target: int, chunks: Iterator[bytes]) -> None:
    with open(target, "wb", closefd=False) as file:
        for chunk in chunks:
            file.write(chunk)
            if file.tell() > _LARGEST:
                raise _bad(f"uncompressed it has more than {_LARGEST >> 20} MiB")


def _bad(why: str, remedy: str = "") -> BadFile:
    return BadFile(Reason.KERNEL_INVALID, f"the kernel can't be used: {why}", remedy)

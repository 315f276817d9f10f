"""ext4 files: making one that is no larger than it needs to be, and judging one that is given.

Layout of the superblock: the kernel's Documentation/filesystems/ext4/super.rst, whose offsets the struct below follows.
"""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from ingle.api_server.adapters.rootfs.contents import Contents, Xattr, of_archive
from ingle.api_server.adapters.rootfs.problem import bad
from ingle.api_server.host.child import limited
from ingle.api_server.host.threads import in_thread
from ingle.api_server.host.tool import Tools, require
from ingle.api_server.model.errors import Reason, ToolFailed

BLOCK = 4096
_INODE = 256
_MIB = 1 << 20

_SUPERBLOCK = 1024
_MAGIC = 0xEF53
_INCOMPAT_64BIT = 0x80

# One inode for so many bytes, as mke2fs has it for file systems of a usual size. It holds for what is added when the
# disk grows, too.
_BYTES_PER_INODE = 16384
_SLACK = 32 * _MIB
_JOURNAL = 16 * _MIB

# Room in the group descriptors to grow online so far, or to twice what there is. Growing writes zeros to that room in
# every group that has a copy, so much of it makes the first boot of every VM slower. Beyond it, Linux goes on with the
# meta_bg layout by itself.
_GROWS_TO = (64 << 30) // BLOCK

# debugfs reads BUFSIZ (stdio.h) bytes at a time: what is behind them it takes for another command, and what begins with
# "!" for one of the shell's. These end a command as well.
_LONGEST_COMMAND = 8000
_SCRIPT = "xattrs"
_ENDS = (b"\0", b"\n", b"\r")

# The same for all of the same origin, so that the same content makes nearly the same file.
UUID = "1f6e1e00-696e-676c-6500-657874340000"


@dataclass(frozen=True, slots=True)
class Superblock:
    """What is worth knowing of one. `used_inodes` includes the reserved ones and lost+found: `first_inode` in all."""

    size: int
    used_inodes: int
    first_inode: int
    block: int


def read_superblock(image: Path) -> Superblock | None:
    """The superblock of a file that has one where ext2, 3 and 4 have it."""
    with open(image, "rb") as file:
        file.seek(_SUPERBLOCK)
        data = file.read(1024)
    if len(data) < 1024 or struct.unpack_from("<H", data, 0x38) != (_MAGIC,):
        return None
    inodes, blocks = struct.unpack_from("<II", data, 0x0)
    (free_inodes,) = struct.unpack_from("<I", data, 0x10)
    (block_shift,) = struct.unpack_from("<I", data, 0x18)
    (first_inode,) = struct.unpack_from("<I", data, 0x54)
    (incompatible,) = struct.unpack_from("<I", data, 0x60)
    if incompatible & _INCOMPAT_64BIT:
        blocks |= struct.unpack_from("<I", data, 0x150)[0] << 32
    if block_shift > 6:  # 64 KiB
        raise bad("the ext4 superblock is corrupt")
    return Superblock(blocks << (10 + block_shift), inodes - free_inodes, first_inode, 1 << (10 + block_shift))


def check_superblock(superblock: Superblock, image: Path) -> None:
    """Raise BadFile(IMAGE_INVALID) when the file is shorter than its file system, or has no files."""
    size = image.stat().st_size
    if size < superblock.size:
        raise bad(f"the ext4 image is truncated: it has {size} bytes and should have {superblock.size}")
    if superblock.used_inodes <= superblock.first_inode:
        raise bad("the ext4 image holds no files")


async def repair(tools: Tools, image: Path, *, discard: bool = False) -> None:
    """Replay the journal and mend what needs no decision; `discard` makes holes of what no file has any more. Raises
    BadFile(IMAGE_INVALID) when that is not enough."""
    options = ("-E", "discard") if discard else ()
    try:
        # 1: errors were corrected; see e2fsck(8).
        await tools.run([*limited("e2fsck"), "-f", "-p", *options, image], accept=(0, 1))
    except ToolFailed as error:
        raise bad(f"the ext4 image is corrupt: {error.message}", "e2fsck -f IMAGE") from error


async def shrink(tools: Tools, image: Path) -> None:
    """Make one that was repaired no larger than what is in it needs, with the room that a new one has."""
    superblock = _superblock_of(image)
    said = (await tools.run([*limited("resize2fs"), "-P", image])).decode()
    least = re.search(r"minimum size of the filesystem: (\d+)", said)
    if least is None:
        raise ToolFailed(Reason.TOOL_FAILED, f"resize2fs said {said[:200]!r}")
    size = int(least[1]) * superblock.block * 21 // 20 + _SLACK
    if size < superblock.size:
        await tools.run([*limited("resize2fs"), image, f"{-(-size // _MIB)}M"])
    await in_thread(os.truncate, image, _superblock_of(image).size)


def _superblock_of(image: Path) -> Superblock:
    superblock = read_superblock(image)
    if superblock is None:
        raise bad("it has no ext4 file system")
    return superblock


def make_command(contents: Contents, tree: Path, image: Path, uuid: str = UUID) -> list[str | Path]:
    """The mke2fs command that makes `image`, with that UUID, from the directory `tree`.

    Raises HostProblem(DEPENDENCY_MISSING)."""
    inodes = max(contents.inodes * 5 // 4 + 64, _data_bytes(contents) // _BYTES_PER_INODE)
    size = _data_bytes(contents) * 21 // 20 + inodes * _INODE + _JOURNAL + _SLACK
    options = {
        "hash_seed": uuid,
        "resize": max(_GROWS_TO, 2 * size // BLOCK),
        # A new file is all zeros already: nothing is left to the guest's first boot to initialize.
        "assume_storage_prezeroed": 1,
        "lazy_itable_init": 0,
        "lazy_journal_init": 0,
    }
    return [
        *(require("mke2fs"), "-q", "-t", "ext4", "-d", tree, "-U", uuid),
        *("-b", str(BLOCK), "-I", str(_INODE), "-N", str(max(inodes, size // _BYTES_PER_INODE)), "-m", "0"),
        *("-J", f"size={_JOURNAL // _MIB}"),
        *("-E", ",".join(f"{name}={value}" for name, value in options.items())),
        *(image, f"{-(-size // _MIB)}M"),
    ]


def measured(archive: str, scratch: str) -> tuple[int, int]:
    """Inodes and blocks of what is in an archive, as of_archive has them; its extended attributes are left in `scratch`
    for set_xattrs. For in_child: they may be so many that to hear of them would hold up the server."""
    found = of_archive(Path(archive))
    if found.xattrs:
        _write_script(found.xattrs, Path(scratch))
    return found.inodes, found.blocks


async def set_xattrs(tools: Tools, image: Path, scratch: Path) -> None:
    """Set extended attributes in the image itself, where no user needs a privilege for it."""
    script = scratch / _SCRIPT
    if not script.exists():
        return
    problems: list[str] = []
    await tools.run(["debugfs", "-w", "-f", script, image], directory=scratch, on_line=problems.append)
    # debugfs ends well whatever happens; its first line tells its version.
    if problems[1:]:
        raise ToolFailed(Reason.TOOL_FAILED, "\n".join(["debugfs could not set extended attributes", *problems[1:4]]))


def _write_script(xattrs: tuple[Xattr, ...], scratch: Path) -> None:
    """Commands for debugfs, in whose place an archive's names must not bring others. Raises BadFile(IMAGE_INVALID)."""
    with open(scratch / _SCRIPT, "wb") as file:
        for number, xattr in enumerate(xattrs):
            value = scratch / f"xattr-{number}"
            value.write_bytes(xattr.value)
            words = ("ea_set", "-f", value.name, _quoted("/" + xattr.path), _quoted(xattr.name))
            command = " ".join(words).encode("utf-8", "surrogateescape")
            if len(command) > _LONGEST_COMMAND or any(end in command for end in _ENDS):
                raise bad(f"{xattr.path[:100]!r}, too long a name or one with line breaks, has an extended attribute")
            file.write(command + b"\n")


def _quoted(word: str) -> str:
    """As libss, which reads debugfs's commands, wants it."""
    return '"' + word.replace('"', '""') + '"'


def _data_bytes(contents: Contents) -> int:
    return contents.blocks * BLOCK

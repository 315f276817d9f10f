"""Trees of files with everything that a copy can get wrong, and what is to be the same of them afterwards."""

import hashlib
import os
import random
import stat
import struct
from pathlib import Path

ROOT = os.geteuid() == 0
SPARSE_SIZE = 64 << 20

_NAMES = (
    "plain",
    "ünïcödé ☃",
    " lead and trail ",
    "new\nline",
    "-rf",
    "back\\slash",
    "'quote\"",
    "x" * 255,
    "no\udcff\udcfeutf8",
)
_ACL = struct.pack(
    "<I", 2
) + b"".join(  # acl(5): version, then tag, permissions, id; the mask is the group's permissions
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 2**32 - 1), (2, 4, 1234), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1))
)
_CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service+ep, capabilities(7)


def make_tree(top: Path, files: int) -> Path:
    """So many files in nested directories, and one of each oddity; the same every time."""
    chance = random.Random(files)
    top.mkdir()
    for number in range(files):
        directory = top / f"{number % 40}" / f"level {number % 7}" / f"{number % 3}"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{number} {_NAMES[number % 7]}"
        path.write_bytes(chance.randbytes(chance.choice((0, 1, 511, 512, 513, number))))
        path.chmod((0o644, 0o755, 0o600, 0o444, 0o000 if ROOT else 0o400)[number % 5])
        os.utime(path, ns=(0, 1_700_000_000_000_000_001 + number * 1_000_003))
    odd = top / "odd"
    odd.mkdir()
    for name in _NAMES:
        (odd / name).write_text(name, errors="surrogateescape")
        (odd / f"{name[:200]} link").symlink_to(name)
    (odd / "large").write_bytes(chance.randbytes(3_000_001))
    (odd / "dangling").symlink_to("/no/where/no\udcffutf8")
    (odd / "deep").symlink_to("a/" * 200)
    (top / "hard").hardlink_to(odd / "large")
    (odd / "again").hardlink_to(odd / "large")
    os.mkfifo(odd / "pipe", 0o640)
    (odd / "sticky").mkdir()
    (odd / "sticky").chmod(0o1777)
    (odd / "old").touch()
    os.utime(odd / "old", ns=(0, -1_500_000_000))
    _make_sparse(odd / "sparse")
    os.setxattr(odd / "large", "user.a=b%3D", bytes(range(256)))
    os.setxattr(odd, "user.note", b"of a directory")
    if ROOT:
        _make_roots(odd)
    (top / "0").chmod(0o550)
    os.utime(top / "0", ns=(0, 1_600_000_000_123_456_789))
    return top


def _make_sparse(path: Path) -> None:
    """Data here and there, data that is zero, and a hole at the end."""
    with path.open("wb") as file:
        for megabyte in range(0, 50, 10):
            file.seek((megabyte << 20) + megabyte)
            file.write(b"data" * 1000 + bytes(10_000))
        file.truncate(SPARSE_SIZE)


def _make_roots(directory: Path) -> None:
    (directory / "owned").touch()
    os.chown(directory / "owned", 1, 2)
    (directory / "program").touch()
    os.chown(directory / "program", 3, 4)
    (directory / "program").chmod(0o6755)
    os.setxattr(directory / "program", "security.capability", _CAPABILITY)
    os.setxattr(directory / "program", "trusted.note", b"roots only")
    (directory / "acl").touch()
    os.setxattr(directory / "acl", "system.posix_acl_access", _ACL)
    os.lchown(directory / "dangling", 5, 6)
    os.mknod(directory / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))


def facts(top: Path) -> dict[str, tuple[object, ...]]:
    """What is to be the same, by name."""
    found: dict[str, tuple[object, ...]] = {}
    first_name: dict[int, str] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        info = path.lstat()
        name = str(path.relative_to(top))
        content: object = None
        if stat.S_ISLNK(info.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(info.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        is_directory = stat.S_ISDIR(info.st_mode)
        found[name] = (
            oct(info.st_mode),
            info.st_mtime_ns,
            info.st_rdev,
            (info.st_uid, info.st_gid),
            None if is_directory else first_name.setdefault(info.st_ino, name),
            content,
            _attributes(path, info),
        )
    return found


def _attributes(path: Path, info: os.stat_result) -> dict[str, bytes]:
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
        return {}
    return {name: os.getxattr(path, name) for name in sorted(os.listxattr(path))}


def allocated(path: Path) -> int:
    """Bytes that a file takes on its disk."""
    return path.stat().st_blocks * 512

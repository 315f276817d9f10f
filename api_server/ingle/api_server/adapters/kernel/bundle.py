"""A kernel with its modules as one tar archive: the kernel as `kernel`, and its lib/modules/RELEASE below `modules/`.

Of the archive only regular files become files, under names that can't lead anywhere else; so whoever reads the result
meets no link, no device and no FIFO."""

import shutil
import tarfile
from pathlib import Path, PurePosixPath

from ingle.api_server.adapters.kernel.modules import is_module
from ingle.api_server.host.files import new_file
from ingle.api_server.model.errors import BadFile, Reason

KERNEL, MODULES = "kernel", "modules"

_INDEX = "modules."  # .dep, .builtin, .order …
_MOST_MEMBERS = 100_000  # a distribution's kernel has some 5,000
_LONGEST_NAME = 1024
_DEEPEST = 32
_MAGIC_AT, _MAGIC = 257, b"ustar"


def is_one(file: Path) -> bool:
    """Whether it is such an archive; a lone kernel has something else where tar has its magic."""
    with open(file, "rb") as opened:
        opened.seek(_MAGIC_AT)
        return opened.read(len(_MAGIC)) == _MAGIC


def unpack(archive: str, into: str) -> None:
    """Write the kernel and its modules to the new directory `into`. For in_child.

    Raises BadFile(KERNEL_INVALID), HostProblem(DISK_FULL)."""
    root = Path(into)
    (root / MODULES).mkdir(mode=0o700, parents=True)
    try:
        with tarfile.open(archive, "r:") as tar:
            members = 0
            while (member := tar.next()) is not None:
                members += 1
                if members > _MOST_MEMBERS:
                    raise _bad(f"the archive has more than {_MOST_MEMBERS} members")
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them in memory
                _take(tar, member, root)
    except (tarfile.TarError, UnicodeError, ValueError, OverflowError, EOFError) as error:
        raise _bad(f"the archive is corrupt: {error}") from error
    if not (root / KERNEL).exists():
        raise _bad(f"the archive has no file {KERNEL!r}")


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    path = _checked(member.name)
    wanted = path == PurePosixPath(KERNEL) or (
        path.parts[:1] == (MODULES,) and (path.name.startswith(_INDEX) or is_module(path.name))
    )
    if not wanted or not (member.isreg() or member.islnk()):
        return
    target = root / path
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if member.islnk():
            target.hardlink_to(root / _checked(member.linkname))
            return
        content = tar.extractfile(member)
        assert content is not None
        with new_file(target, 0o600) as descriptor, open(descriptor, "wb", closefd=False) as file:
            shutil.copyfileobj(content, file, 1 << 20)
    except FileExistsError:
        raise _bad(f"the archive has {member.name!r} twice") from None
    except OSError as error:
        raise _bad(f"the archive's {member.name[:100]!r} can't be: {error.strerror}") from None


def _checked(name: str) -> PurePosixPath:
    path = PurePosixPath(name[: _LONGEST_NAME + 1])
    if len(name) > _LONGEST_NAME or len(path.parts) > _DEEPEST or path.is_absolute() or ".." in path.parts:
        raise _bad(f"the archive has the name {name[:100]!r}; short relative names without '..' are allowed")
    return path


def _bad(why: str) -> BadFile:
    return BadFile(Reason.KERNEL_INVALID, f"the kernel can't be used: {why}")

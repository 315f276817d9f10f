"""All modules of a kernel, as a disk that its guests share: lib/modules/RELEASE as a read-only file system.

It is squashfs, and not erofs: half as long (of Debian's cloud kernel 22 MB, not 43), made in about the same time, and
the module that reads it is smaller and needs no other. The same modules make the same bytes, with one version of
mksquashfs.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from ingle.api_server.adapters.kernel import modules
from ingle.api_server.host.child import limited
from ingle.api_server.host.files import disk_full_reported
from ingle.api_server.host.threads import in_thread
from ingle.api_server.host.tool import Tools, require

NAME = "modules.squashfs"
LATER = "ingle"
"""The directory in there with what the agent loads first of all, uncompressed and in load order."""

# Nobody knows how much a tool writes of what a caller sent; 512 MiB a file are enough of it.
_BOUNDED = 'ulimit -f 1048576; exec "$@"'

# What the fastest levels leave is a tenth longer, and what the best ones save costs ten times as much.
_LEVELS = {"zstd": "6", "gzip": "6"}

# The same modules make the same file: no times, no owners, no modes, nothing but names and content.
_SAME = (
    *("-all-root", "-all-time", "0", "-mkfs-time", "0", "-root-mode", "0755", "-no-xattrs", "-no-exports"),
    *("-action", "chmod(0644)@type(f)", "-action", "chmod(0755)@type(d)"),
    *("-mem", "256M", "-noappend", "-no-progress", "-quiet"),
)


async def make(
    tools: Tools, directory: Path, later: Path, release: str, compression: str, scratch: Path, disk: Path
) -> int:
    """Write the new file `disk` of a lib/modules/RELEASE directory, which is left as it is, and of the modules in
    `later`; answers how many modules are on it.

    Raises HostProblem: DISK_FULL, DEPENDENCY_MISSING; ToolFailed."""
    base = scratch / "disk"
    tree = base / "lib" / "modules" / release
    count = await in_thread(_stage, directory, tree)
    # Whether depmod looks in lib or in usr/lib depends on how it was built.
    (base / "usr").symlink_to(".")
    bounded = (*limited("sh"), "-c", _BOUNDED, "sh")
    # Packages leave the indexes to their installation, and who sends modules may have left some of them out.
    await tools.run([*bounded, require("depmod"), "--basedir", base, release])
    await in_thread(later.rename, tree / LATER)
    level = ("-comp", compression, "-Xcompression-level", _LEVELS[compression])
    await tools.run([*bounded, require("mksquashfs"), tree, disk, *level, *_SAME])
    return count


def _stage(directory: Path, tree: Path) -> int:
    """Have the modules and indexes of a directory in another one, as links where that can be; answers how many modules
    there are."""
    count = 0
    with disk_full_reported(tree):
        tree.mkdir(parents=True)
        for path in _files(directory):
            target = tree / path.relative_to(directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target)
            except OSError:  # it is on another file system, or not ours
                shutil.copyfile(path, target)
            count += modules.is_module(path.name)
    return count


def _files(directory: Path) -> Iterator[Path]:
    """The regular ones. `build` and `source` are links to what no guest has."""
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path

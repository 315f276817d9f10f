"""How the files of snapshots lie on the disk.

    <root>/<id>/            whole: manifest.json, the disk, memory/; X.delta in the place of X: see host/block_delta.py
    <root>/<id>/whole/      what deltas come to, where somebody needs it: may be removed at any time
    <root>/<id>.new/        being made
    <root>/<id>.new/thin/   what it would be over another one
    <root>/<id>.flat/       what it would be over none

One rename makes it whole. What makes it flat is in the store: the digest that is there tells which of the two manifests
counts.
"""

import hashlib
import json
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from ingle.api_server.host import files
from ingle.api_server.host.block_delta import SUFFIX
from ingle.api_server.model.errors import BadFile, Reason
from ingle.api_server.model.snapshot import Snapshot

FORMAT = 1

MANIFEST = "manifest.json"
LONGEST_MANIFEST = 64 * 1024
MEMORY = "memory"
WHOLE, THIN = "whole", "thin"
NEW, FLAT = ".new", ".flat"
RESTS = (SUFFIX, ".qcow2")
"""What the names of files end with that are of no use without those of the snapshot that theirs rests on."""


class Seen(NamedTuple):
    """By what a file is known that has not changed: whoever writes to it changes the last, and can't set it."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


def files_of(directory: Path) -> list[Path]:
    """All but the manifest and what is made of them, in a fixed order."""
    made = (WHOLE, f"{WHOLE}{NEW}", THIN)
    found: list[Path] = []
    for parent, directories, names in os.walk(directory):
        if Path(parent) == directory:
            directories[:] = [name for name in directories if name not in made]
        found += [Path(parent, name) for name in names]
    return sorted(path for path in found if path.name != MANIFEST or path.parent != directory)


def named(directory: Path) -> Collection[str]:
    """Files that the manifest there is on."""
    return {each["name"] for each in json.loads((directory / MANIFEST).read_bytes())["files"]}


def manifest_digest(directory: Path) -> str:
    """Of the manifest there; empty where there is none."""
    try:
        return hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def without_suffix(path: Path) -> Path:
    """What a delta is of; another file is itself."""
    return path.with_suffix("") if path.suffix == SUFFIX else path


def mode(path: Path) -> int:
    """A VMM may want to write to what it maps."""
    return 0o600 if path.parent.name == MEMORY else 0o400


def taken(directory: Path) -> int:
    """Blocks of all that is in the manifest there, and its own."""
    return sum(files.allocated_bytes(path) for path in (*files_of(directory), directory / MANIFEST))


def seen_of(path: Path) -> Seen:
    """As it is now. Raises OSError, also where it is no regular file."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "it is no regular file", str(path))
    return Seen(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def manifest(snapshot: Snapshot, told: list[dict[str, Any]]) -> dict[str, Any]:
    """What is told of it, and of its files."""
    settings = snapshot.settings
    return {
        "format": FORMAT,
        "id": snapshot.id,
        "name": snapshot.name,
        "created_at": snapshot.created_at.isoformat(),
        "vm": {"id": snapshot.vm_id, "name": snapshot.vm_name},
        "image": {"id": settings.image_id, "name": settings.image_name},
        "kernel": {"id": settings.kernel_id, "name": settings.kernel_name},
        "engine": settings.engine,
        "acceleration": snapshot.acceleration.value,
        "memory_key": snapshot.memory_key,
        "vcpus": settings.vcpus,
        "memory_bytes": settings.memory_bytes,
        "disk_bytes": settings.disk_bytes,
        "disk_backend": settings.disk_backend,
        "parent": snapshot.parent_id,
        "files": told,
    }


def invalid(snapshot: Snapshot, why: str) -> BadFile:
    """What is said of one whose files are not what they were."""
    return BadFile(
        Reason.SNAPSHOT_INVALID,
        f"{snapshot.told} is damaged, and nothing was started of it: {why}",
        f"ingle snapshot delete {snapshot.name or snapshot.id}; and look after the host's disk",
    )

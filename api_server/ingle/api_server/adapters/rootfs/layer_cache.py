"""Implements ports.layer_cache.LayerCache: files that the image puller has made, and holds by locks while it uses them.

`image_puller/internal/blobs` has the layout.
"""

import errno
import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingle.api_server.host.threads import Stop, in_stoppable_thread
from ingle.api_server.ports.layer_cache import Pruned

log = logging.getLogger(__name__)

_BLOCK = 512
_WITH_BLOBS = ("layers", "fetching")
_LOCKS = "locks"
_TRASH = "trash"


@dataclass(frozen=True, slots=True)
class _Blob:
    path: Path
    used_at: float
    allocated: int


class DirectoryLayerCache:
    """Below `root`, which may go at any time."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def prune(self, most: int = 0, *, dry_run: bool = False) -> Pruned:
        return await in_stoppable_thread(_prune, self._root, most, dry_run)


def _prune(stop: Stop, root: Path, most: int, dry_run: bool) -> Pruned:
    blobs = sorted(_blobs(root, *_WITH_BLOBS), key=lambda blob: blob.used_at)
    left = sum(blob.allocated for blob in blobs)
    count = freed = 0
    trash = root / _TRASH
    if not dry_run:
        _empty(trash)  # of one that was killed
    for blob in blobs:
        if left <= most:
            break
        stop.check()
        if _is_free(root, blob.path) and _taken_away(blob.path, trash, dry_run=dry_run):
            count, freed, left = count + 1, freed + blob.allocated, left - blob.allocated
    if not dry_run:  # each pull leaves some, whatever came of it
        for blob in _blobs(root, _LOCKS):
            stop.check()
            _taken_away(blob.path, trash, dry_run=False)
    if count and not dry_run:
        log.info("%d layers deleted, %d MiB", count, freed >> 20)
    return Pruned(count, freed)


def _blobs(root: Path, *names: str) -> Iterator[_Blob]:
    for name in names:
        with suppress(FileNotFoundError), os.scandir(root / name) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    facts = entry.stat(follow_symlinks=False)
                    yield _Blob(Path(entry.path), facts.st_mtime, facts.st_blocks * _BLOCK)


def _is_free(root: Path, path: Path) -> bool:
    """Whether nobody makes a layer there; see the layout."""
    if not path.name.startswith("."):
        return True
    try:
        descriptor = os.open(root / _LOCKS / path.name[1:], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        # Who made it and was killed has left it; one who begins anew makes it anew.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _taken_away(path: Path, trash: Path, *, dry_run: bool) -> bool:
    """Whether nobody uses it. Who opens it now finds that it has no name any more, or has it still: both are fine."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not dry_run:
            _aside(path, trash).unlink()
    except (BlockingIOError, FileNotFoundError):  # a pull has it; or somebody has emptied the cache
        return False
    finally:
        os.close(descriptor)
    return True


def _aside(path: Path, trash: Path) -> Path:
    """Where it is then: where it was, if a full disk has no room for a directory."""
    try:
        trash.mkdir(mode=0o700, exist_ok=True)
        return path.rename(trash / secrets.token_hex(8))
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        return path


def _empty(trash: Path) -> None:
    with suppress(FileNotFoundError):
        for path in trash.iterdir():
            path.unlink(missing_ok=True)

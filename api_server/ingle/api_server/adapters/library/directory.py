"""A content-addressed directory.

    <root>/<id>/          complete, synced, read-only
    <root>/.work/<op_id>/ being made
    <root>/.trash/…       being deleted

Nothing moves between the three but by one rename each, so a kill at any instant leaves an item whole or absent, and
what it leaves in .work and .trash the next start sweeps away.
"""

import hashlib
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from ingle.api_server.host import files
from ingle.api_server.host.rootlike import remove_tree
from ingle.api_server.host.threads import Stop, in_stoppable_thread, in_thread
from ingle.api_server.host.tool import Tools
from ingle.api_server.ports.sources import Sealed

_PIECE = 256 * 1024


class DirectoryLibrary:
    """Implements ports.sources.Library below `root`, which is made when it is first needed."""

    def __init__(self, root: Path, tools: Tools) -> None:
        self._root = root
        self._work = root / ".work"
        self._trash = root / ".trash"
        self._tools = tools

    def path(self, item_id: str) -> Path:
        return self._root / item_id

    @asynccontextmanager
    async def workspace(self, op_id: str) -> AsyncIterator[Path]:
        path = self._work / op_id
        with files.disk_full_reported(self._root):
            self._work.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            await remove_tree(self._tools, path)

    def allocated_bytes(self, item_id: str) -> int:
        try:
            return sum(files.allocated_bytes(file) for file in self.path(item_id).rglob("*") if file.is_file())
        except FileNotFoundError:  # it is being deleted
            return 0

    async def pieces(self, file: Path) -> AsyncIterator[bytes]:
        opened = await in_thread(file.open, "rb")
        try:
            while piece := await in_thread(opened.read, _PIECE):
                yield piece
        finally:
            opened.close()

    async def seal(self, workspace: Path) -> Sealed:
        return await in_stoppable_thread(_seal, workspace)

    async def publish(self, workspace: Path, item_id: str) -> None:
        with files.disk_full_reported(self._root):
            await in_thread(self._move_in, workspace, item_id)

    async def remove(self, item_id: str) -> None:
        trash = self._trash / f"{item_id}-{secrets.token_hex(4)}"
        self._trash.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self.path(item_id).rename(trash)
        except FileNotFoundError:
            return
        await in_thread(files.sync_directory, self._root)
        await remove_tree(self._tools, trash)

    async def sweep(self, known: Collection[str] | None) -> None:
        if known is not None:
            for item in _children(self._root):
                if item not in (self._work, self._trash) and item.name not in known:
                    await self.remove(item.name)
        for directory in (self._work, self._trash):
            for leftover in _children(directory):
                await remove_tree(self._tools, leftover)

    def _move_in(self, workspace: Path, item_id: str) -> None:
        try:
            workspace.rename(self.path(item_id))
        except OSError:
            if not self.path(item_id).is_dir():
                raise
            return  # it is there already, and the same; the workspace goes when its context is left
        files.sync_directory(self._root)


def _children(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _seal(stop: Stop, workspace: Path) -> Sealed:
    """Make the files read-only (VMs share them), and everything durable."""
    paths = sorted(path for path in workspace.rglob("*") if path.is_file())
    digests = [(path.relative_to(workspace).as_posix(), files.sha256(path, stop)) for path in paths]
    for path in paths:
        path.chmod(0o444)
    with files.disk_full_reported(workspace):
        files.sync_tree(workspace)
    size = sum(path.stat().st_size for path in paths)
    if len(digests) == 1:
        return Sealed(digests[0][1], size)
    listing = "".join(f"{digest}  {name}\n" for name, digest in digests)
    return Sealed(hashlib.sha256(listing.encode()).hexdigest(), size)

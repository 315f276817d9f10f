"""The cache of pristine guests.

    <root>/<key>/          manifest.json, memory/ and disk: complete, synced, read-only
    <root>/.work/<vm id>/  the state directory of a guest that is being made
    <root>/.trash/…        being deleted

Nothing moves between the three but by one rename each. What the manifest says of a file is compared each time that it
is used: its size always, its hash once a server, and again when the file was changed.
"""

import json
import logging
import os
import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingle.api_server.host import files
from ingle.api_server.host.threads import Stop, in_stoppable_thread, in_thread
from ingle.api_server.model.errors import BadFile, Reason
from ingle.api_server.model.warm import Machine, WarmMemory, is_key
from ingle.api_server.ports.engine import VmPaths

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_MEMORY = "memory"
_DISK = "disk"
_LONGEST_MANIFEST = 64 * 1024

_Identity = tuple[int, int, int, int]


class DirectoryWarmCache:
    """Implements ports.warm.WarmCache below `root`, which is made when it is first needed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.work = root / ".work"
        """Where guests are made."""
        self._trash = root / ".trash"
        self._seen: dict[Path, _Identity] = {}
        """What files were when their hashes were right."""

    def make_directory(self, paths: VmPaths) -> None:
        paths.state.mkdir(mode=0o700, parents=True)

    def memory(self, paths: VmPaths) -> Path:
        directory = paths.state / _MEMORY
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory

    async def publish(self, machine: Machine, paths: VmPaths, disk: Path, token: bytes, now: datetime) -> WarmMemory:
        with files.disk_full_reported(self._root):
            await in_stoppable_thread(self._seal, machine, paths.state, disk, token, now)
            await in_thread(self._put, paths.state, machine.key)
        guest = self._read(machine.key)
        assert guest is not None
        return guest

    async def find(self, key: str) -> WarmMemory | None:
        return await in_stoppable_thread(self._find, key)

    async def used(self, key: str, now: datetime) -> None:
        try:
            os.utime(self._root / key / _MANIFEST, (now.timestamp(), now.timestamp()))
        except OSError as error:  # it is forgotten a little earlier
            log.info("when a memory was used is not written down: %s", error)

    async def all(self) -> list[WarmMemory]:
        return await in_thread(self._all)

    async def remove(self, key: str) -> None:
        await in_thread(self._remove, key)

    async def bound(self, most_bytes: int, spared: Collection[str]) -> list[str]:
        return await in_thread(self._bound, most_bytes, spared)

    async def sweep(self) -> None:
        await in_thread(self._sweep)

    def _seal(self, stop: Stop, machine: Machine, state: Path, disk: Path, token: bytes, now: datetime) -> None:
        disk.rename(state / _DISK)
        for path in state.iterdir():
            if path.name not in (_MEMORY, _DISK):
                files.remove_tree(path)
        described = {}
        (state / _DISK).chmod(0o400)  # the memory's files have the modes that their engine can open them with
        for path in (state / _DISK, *sorted((state / _MEMORY).iterdir())):
            described[str(path.relative_to(state))] = _described(stop, path)
        manifest = {
            "machine": machine.as_json(),
            "token": token.hex(),
            "created_at": now.timestamp(),
            "files": described,
        }
        files.write_atomically(state / _MANIFEST, json.dumps(manifest).encode(), 0o600)
        os.utime(state / _MANIFEST, (now.timestamp(), now.timestamp()))
        files.sync_tree(state)

    def _put(self, state: Path, key: str) -> None:
        self._remove(key)
        state.rename(self._root / key)
        files.sync_directory(self._root)
        for path in _files_below(self._root / key):
            self._seen[path] = _identity(path.stat())

    def _find(self, stop: Stop, key: str) -> WarmMemory | None:
        directory = self._root / key
        try:
            manifest = self._manifest(key)
            if manifest is None:
                return None
            guest = self._guest(key, manifest)
            if guest.key != key:
                raise ValueError("it is of another machine")
            for name, told in manifest["files"].items():
                self._check(stop, directory / name, told)
        except OSError as error:
            raise _damaged(f"{error.filename or directory}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _damaged(f"{directory / _MANIFEST}: {error!r}") from error
        return guest

    def _check(self, stop: Stop, path: Path, told: Mapping[str, Any]) -> None:
        """Raises BadFile, OSError."""
        status = path.stat()
        if status.st_size != told["size"]:
            raise _damaged(f"{path} has {status.st_size} bytes in place of {told['size']}")
        if self._seen.get(path) == _identity(status):
            return
        if files.content_digest(path, stop) != told["digest"]:
            raise _damaged(f"{path} has another content than it had")
        self._seen[path] = _identity(status)

    def _all(self) -> list[WarmMemory]:
        found = [guest for key in self._keys() if (guest := self._read(key)) is not None]
        return sorted(found, key=lambda guest: (guest.used_at, guest.key))

    def _keys(self) -> Iterator[str]:
        try:
            yield from filter(is_key, os.listdir(self._root))
        except FileNotFoundError:
            return

    def _read(self, key: str) -> WarmMemory | None:
        """The entry as its manifest has it; None when there is none that makes sense."""
        try:
            manifest = self._manifest(key)
            return None if manifest is None else self._guest(key, manifest)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("a memory in the cache makes no sense: %r", error, extra={"key": key})
            return None

    def _manifest(self, key: str) -> dict[str, Any] | None:
        try:
            with (self._root / key / _MANIFEST).open("rb") as file:
                manifest: dict[str, Any] = json.loads(file.read(_LONGEST_MANIFEST))
                return manifest
        except FileNotFoundError:
            if (self._root / key).exists():
                raise
            return None

    def _guest(self, key: str, manifest: dict[str, Any]) -> WarmMemory:
        directory = self._root / key
        return WarmMemory(
            machine=Machine.from_json(manifest["machine"]),
            memory=directory / _MEMORY,
            disk=directory / _DISK,
            token=bytes.fromhex(manifest["token"]),
            created_at=datetime.fromtimestamp(manifest["created_at"], UTC),
            used_at=datetime.fromtimestamp((directory / _MANIFEST).stat().st_mtime, UTC),
            allocated_bytes=sum(files.allocated_bytes(path) for path in _files_below(directory)),
        )

    def _remove(self, key: str) -> None:
        directory = self._root / key
        if not directory.exists():
            return
        self._trash.mkdir(mode=0o700, exist_ok=True)
        aside = self._trash / f"{key}-{secrets.token_hex(4)}"
        directory.rename(aside)
        self._seen = {path: seen for path, seen in self._seen.items() if directory not in path.parents}
        files.remove_tree(aside)

    def _bound(self, most_bytes: int, spared: Collection[str]) -> list[str]:
        guests = self._all()
        taken = Counter[int]()
        for guest in guests:
            taken[guest.machine.owner] += guest.allocated_bytes
        gone = []
        left = [guest for guest in guests if guest.key not in spared]
        while left and taken.total() > most_bytes:
            # Whoever has least has nothing to lose by what others have made.
            most = max({guest.machine.owner for guest in left}, key=lambda owner: taken[owner])
            guest = next(guest for guest in left if guest.machine.owner == most)
            left.remove(guest)
            self._remove(guest.key)
            taken[most] -= guest.allocated_bytes
            gone.append(guest.key)
        return gone

    def _sweep(self) -> None:
        for directory in (self.work, self._trash):
            files.remove_tree(directory)


def _files_below(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file())


def _described(stop: Stop, path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "digest": files.content_digest(path, stop)}


def _identity(status: os.stat_result) -> _Identity:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _damaged(what: str) -> BadFile:
    return BadFile(
        Reason.MEMORY_DAMAGED, f"the memory of a pristine guest is damaged: {what}", "ingle image prune --all"
    )

"""Implements ports.snapshot_files.SnapshotFiles."""

import errno
import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ingle.api_server.adapters.snapshot_files import layout
from ingle.api_server.host import block_delta, files
from ingle.api_server.host.block_delta import SUFFIX, Stack
from ingle.api_server.host.threads import Stop, in_stoppable_thread, in_thread
from ingle.api_server.model.errors import BadFile
from ingle.api_server.model.snapshot import Snapshot
from ingle.api_server.ports.snapshot_files import SealedSnapshot, Whole

_LEAST_SAVED = 4
"""A quarter: what saves less is not worth that one needs the other."""


class LocalSnapshotFiles:
    """Below one directory, which is on the file system of the VMs' disks: so they can share blocks."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._verified: dict[Path, tuple[layout.Seen, str]] = {}

    def path(self, snapshot_id: str) -> Path:
        return self._root / snapshot_id

    def memory(self, directory: Path) -> Path:
        return directory / layout.MEMORY

    async def begin(self, snapshot: Snapshot) -> Path:
        directory = self._new(snapshot.id)
        with files.disk_full_reported(self._root):
            directory.mkdir(mode=0o700)
            if snapshot.memory:
                self.memory(directory).mkdir(mode=0o700)
        return directory

    async def publish(self, snapshot: Snapshot) -> SealedSnapshot:
        return await in_stoppable_thread(self._publish, snapshot)

    async def verify(self, chain: Sequence[Snapshot]) -> None:
        await in_stoppable_thread(self._verify_all, chain)

    async def whole(self, chain: Sequence[Snapshot]) -> Whole:
        return await in_stoppable_thread(self._whole, chain)

    def whole_bytes(self, chain: Sequence[Snapshot]) -> int:
        own = self.path(chain[0].id)
        if (own / layout.WHOLE).is_dir() or not any(path.suffix == SUFFIX for path in layout.files_of(own)):
            return 0
        return sum(each.size_bytes for each in chain)

    async def forget_whole(self, snapshot_id: str) -> None:
        directory = self.path(snapshot_id) / layout.WHOLE
        if directory.is_dir():
            self._forget(directory)
            await in_thread(files.remove_tree, directory)

    async def thin(self, snapshot: Snapshot, parent: Sequence[Snapshot], *, disk: bool) -> Path:
        return await in_stoppable_thread(self._thin, snapshot, parent, disk)

    async def settle_thin(self, snapshot: Snapshot, *, at_any_price: bool) -> bool:
        return await in_thread(self._settle_thin, snapshot, at_any_price)

    async def begin_flat(self, snapshot: Snapshot) -> Path:
        directory = self._flat(snapshot.id)
        await in_thread(files.remove_tree, directory)
        with files.disk_full_reported(self._root):
            directory.mkdir(mode=0o700)
        return directory

    async def publish_flat(self, chain: Sequence[Snapshot], flat: Snapshot) -> SealedSnapshot:
        return await in_stoppable_thread(self._publish_flat, chain, flat)

    async def settle_flat(self, snapshot_id: str, digest: str) -> None:
        self._forget(self.path(snapshot_id))
        await in_thread(self._settle_flat, snapshot_id, digest)

    async def remove(self, snapshot_id: str) -> None:
        for directory in (self.path(snapshot_id), self._new(snapshot_id), self._flat(snapshot_id)):
            self._forget(directory)
            await in_thread(files.remove_tree, directory)

    async def sweep(self, known: Collection[str]) -> None:
        for directory in [*self._root.iterdir()] if self._root.is_dir() else []:
            if directory.name not in known:
                await in_thread(files.remove_tree, directory)

    def _new(self, snapshot_id: str) -> Path:
        return self._root / f"{snapshot_id}{layout.NEW}"

    def _flat(self, snapshot_id: str) -> Path:
        return self._root / f"{snapshot_id}{layout.FLAT}"

    def _forget(self, directory: Path) -> None:
        self._verified = {path: seen for path, seen in self._verified.items() if directory not in path.parents}

    def _publish(self, stop: Stop, snapshot: Snapshot) -> SealedSnapshot:
        directory, whole = self._new(snapshot.id), self.path(snapshot.id)
        digests, digest = self._seal(stop, directory, snapshot)
        with files.disk_full_reported(self._root):
            directory.rename(whole)
            files.sync_directory(self._root)
        for name, known in digests.items():
            self._verified[whole / name] = layout.seen_of(whole / name), known
        return SealedSnapshot(layout.taken(whole), digest)

    def _seal(self, stop: Stop, directory: Path, snapshot: Snapshot) -> tuple[Mapping[str, str], str]:
        """Digests of the files, and of the manifest: all is on the disk, and changes no more."""
        digests = {}
        for path in layout.files_of(directory):
            path.chmod(layout.mode(path))
            digests[path.relative_to(directory).as_posix()] = files.content_digest(path, stop)
        told = [
            {"name": name, "size": (directory / name).stat().st_size, "digest": digest}
            for name, digest in digests.items()
        ]
        manifest = json.dumps(layout.manifest(snapshot, told), indent=1, ensure_ascii=False).encode()
        files.write_atomically(directory / layout.MANIFEST, manifest, 0o400)
        with files.disk_full_reported(self._root):
            files.sync_tree(directory)
        return digests, hashlib.sha256(manifest).hexdigest()

    def _thin(self, stop: Stop, snapshot: Snapshot, parent: Sequence[Snapshot], disk: bool) -> Path:
        new = self._new(snapshot.id)
        thin = new / layout.THIN
        with files.disk_full_reported(self._root):
            thin.mkdir(mode=0o700)
        for path in layout.files_of(new):
            name = path.relative_to(new).as_posix()
            base = self._stack(parent, name) if disk or path.parent.name == layout.MEMORY else None
            if base is not None:
                target = thin / f"{name}{SUFFIX}"
                with files.disk_full_reported(self._root):
                    target.parent.mkdir(mode=0o700, exist_ok=True)
                block_delta.write(stop, path, base, target)
                if files.allocated_bytes(target) >= files.allocated_bytes(path):
                    target.unlink()
        return thin

    def _stack(self, chain: Sequence[Snapshot], name: str) -> Stack | None:
        """What a file of a snapshot's is made of; None where it has none."""
        deltas: list[Path] = []
        for snapshot in chain:
            own = self.path(snapshot.id)
            if (own / name).is_file():
                return Stack(own / name, tuple(reversed(deltas)))
            deltas.append(own / f"{name}{SUFFIX}")
            if not deltas[-1].is_file():
                return None
        return None

    def _settle_thin(self, snapshot: Snapshot, at_any_price: bool) -> bool:
        new = self._new(snapshot.id)
        thin = new / layout.THIN
        places = {path: new / path.relative_to(thin) for path in layout.files_of(thin)}
        whole = sum(map(files.allocated_bytes, layout.files_of(new)))
        replaced = sum(files.allocated_bytes(layout.without_suffix(place)) for place in places.values())
        saved = replaced - sum(map(files.allocated_bytes, places))
        worth = at_any_price or saved * _LEAST_SAVED >= whole > 0
        if worth:
            for path, place in places.items():
                path.replace(place)
                if place.suffix == SUFFIX:
                    layout.without_suffix(place).unlink()
        files.remove_tree(thin)
        return worth

    def _whole(self, stop: Stop, chain: Sequence[Snapshot]) -> Whole:
        own = self.path(chain[0].id)
        deltas = [path for path in layout.files_of(own) if path.suffix == SUFFIX]
        if not deltas:
            return Whole(own, self.memory(own))
        whole = own / layout.WHOLE
        try:
            if not whole.is_dir() or not all(self._is_whole(stop, path) for path in deltas):
                self._make_whole(stop, chain, deltas, whole)
        except OSError as error:
            raise layout.invalid(chain[0], f"{error.filename}: {error.strerror}") from error
        return Whole(
            whole if any(path.parent == own for path in deltas) else own,
            self.memory(whole if any(path.parent != own for path in deltas) else own),
        )

    def _is_whole(self, stop: Stop, delta: Path) -> bool:
        """Whether what it comes to is there."""
        place = self._place(delta)
        try:
            seen, (size, digest) = layout.seen_of(place), block_delta.digest_of(delta)
            if self._verified.get(place) == (seen, digest):
                return True
            if seen.size != size or files.content_digest(place, stop) != digest:
                return False
        except FileNotFoundError:
            return False
        self._verified[place] = seen, digest
        return True

    def _make_whole(self, stop: Stop, chain: Sequence[Snapshot], deltas: list[Path], whole: Path) -> None:
        new = whole.with_suffix(layout.NEW)
        for directory in (new, whole):
            files.remove_tree(directory)
        with files.disk_full_reported(self._root):
            (new / layout.MEMORY).mkdir(mode=0o700, parents=True)
        try:
            for delta in deltas:
                self._compose(stop, chain, delta, new)
            self._link_rest(whole.parent / layout.MEMORY, new / layout.MEMORY)
            new.rename(whole)
        except BaseException:
            files.remove_tree(new)
            raise
        for delta in deltas:
            self._verified[self._place(delta)] = layout.seen_of(self._place(delta)), block_delta.digest_of(delta)[1]

    def _compose(self, stop: Stop, chain: Sequence[Snapshot], delta: Path, directory: Path) -> None:
        """Below that, what one of the first one's deltas comes to."""
        name = layout.without_suffix(delta.relative_to(self.path(chain[0].id)))
        base = self._stack(chain[1:], name.as_posix())
        if base is None:
            raise OSError(errno.ENOENT, "what it rests on is missing", str(delta))
        target = directory / name
        block_delta.compose(stop, Stack(base.whole, (*base.deltas, delta)), target)
        target.chmod(layout.mode(target))

    def _link_rest(self, source: Path, target: Path) -> None:
        """What is there as it is and not in the other directory. A link changes when a file changed."""
        for path in [*source.iterdir()] if source.is_dir() else []:
            if path.suffix == SUFFIX or not path.is_file() or (target / path.name).exists():
                continue
            known = self._verified.get(path)
            with files.disk_full_reported(self._root):
                os.link(path, target / path.name)
            if known is not None:
                self._verified[path] = layout.seen_of(path), known[1]

    @staticmethod
    def _place(delta: Path) -> Path:
        """Where what it comes to is."""
        name = layout.without_suffix(delta)
        if name.parent.name == layout.MEMORY:
            return name.parent.parent / layout.WHOLE / layout.MEMORY / name.name
        return name.parent / layout.WHOLE / name.name

    def _publish_flat(self, stop: Stop, chain: Sequence[Snapshot], flat: Snapshot) -> SealedSnapshot:
        own, directory = self.path(flat.id), self._flat(flat.id)
        with files.disk_full_reported(self._root):
            if flat.memory:
                self.memory(directory).mkdir(mode=0o700)
        for delta in (path for path in layout.files_of(own) if path.suffix == SUFFIX):
            self._compose(stop, chain, delta, directory)
        for part in (".", layout.MEMORY):
            self._link_rest(own / part, directory / part)
        (directory / layout.MANIFEST).unlink(missing_ok=True)
        _, digest = self._seal(stop, directory, flat)
        return SealedSnapshot(layout.taken(directory), digest)

    def _settle_flat(self, snapshot_id: str, digest: str) -> None:
        own, flat = self.path(snapshot_id), self._flat(snapshot_id)
        if layout.manifest_digest(flat) == digest:
            for path in (*layout.files_of(flat), flat / layout.MANIFEST):
                path.replace(own / path.relative_to(flat))
            files.sync_tree(own)
        if flat.is_dir() and layout.manifest_digest(own) == digest:
            known = layout.named(own)
            for path in layout.files_of(own):
                if path.relative_to(own).as_posix() not in known:
                    path.unlink()
        files.remove_tree(flat)

    def _verify_all(self, stop: Stop, chain: Sequence[Snapshot]) -> None:
        for snapshot in chain:
            try:
                names = self._verify(stop, snapshot)
            except BadFile as error:
                if snapshot is chain[0]:
                    raise
                raise layout.invalid(chain[0], f"it rests on {snapshot.told}; {error.message}") from error
            if not any(name.endswith(layout.RESTS) for name in names):
                return

    def _verify(self, stop: Stop, snapshot: Snapshot) -> Collection[str]:
        """Names of its files."""
        directory = self.path(snapshot.id)
        try:
            wanted = self._wanted(snapshot)
            found = {path.relative_to(directory).as_posix() for path in layout.files_of(directory)}
            if strange := sorted(found ^ wanted.keys()):
                raise layout.invalid(snapshot, f"{strange[0]} is {'not of it' if strange[0] in found else 'missing'}")
            for name, (size, digest) in wanted.items():
                self._verify_file(stop, snapshot, directory / name, size, digest)
        except OSError as error:
            raise layout.invalid(snapshot, f"{error.filename}: {error.strerror}") from error
        return wanted.keys()

    def _verify_file(self, stop: Stop, snapshot: Snapshot, path: Path, size: int, digest: str) -> None:
        seen = layout.seen_of(path)
        if self._verified.get(path) == (seen, digest):
            return
        if seen.size != size:
            raise layout.invalid(snapshot, f"{path} has {seen.size} bytes, and had {size}")
        if files.content_digest(path, stop) != digest:
            raise layout.invalid(snapshot, f"what is in {path} has changed")
        self._verified[path] = seen, digest

    def _wanted(self, snapshot: Snapshot) -> Mapping[str, tuple[int, str]]:
        """Size and digest of each file, as the manifest has it, which the store knows."""
        path = self.path(snapshot.id) / layout.MANIFEST
        with open(path, "rb") as file:
            manifest = file.read(layout.LONGEST_MANIFEST)
        if hashlib.sha256(manifest).hexdigest() != snapshot.digest:
            raise layout.invalid(snapshot, f"{path} has changed")
        return {each["name"]: (each["size"], each["digest"]) for each in json.loads(manifest)["files"]}

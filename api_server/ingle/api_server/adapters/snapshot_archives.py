"""Implements ports.snapshot_archives.SnapshotArchives, by host.sparse_archive."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ingle.api_server.host import files
from ingle.api_server.host.sparse_archive import Entry, Reader, write
from ingle.api_server.host.spool import spool
from ingle.api_server.host.threads import Stop, in_stoppable_thread, in_thread
from ingle.api_server.model.errors import BadFile, IngleError, Reason
from ingle.api_server.model.ids import is_vm_id
from ingle.api_server.model.snapshot import Snapshot
from ingle.api_server.model.vm import Acceleration, Init, VmSettings
from ingle.api_server.ports.snapshot_archives import Archived

FORMAT = 1

_DISK = "disk"
_MEMORY_FILE = re.compile(r"memory/([a-z]{1,20})")
_MORE_THAN_RAM = 256 * 1024 * 1024
"""What a file of a memory may have beyond it: devices, and how a stream tells pages apart."""

_MOST = 1 << 46
_PIECE = 256 * 1024
_ARCHIVE = "archive"
_LONGEST_TEXT = 4096
_LONGEST_LINE = 255
_EARLIEST, _LATEST = 1999, 3000
_TEXTS = ("image_id", "image_name", "kernel_id", "kernel_name", "engine", "disk_backend", "network")
_NUMBERS = ("vcpus", "memory_bytes", "disk_bytes")


class LocalSnapshotArchives:
    """Below the directory of the snapshots, whose sweep takes along whatever is no snapshot."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @asynccontextmanager
    async def scratch(self, name: str) -> AsyncIterator[Path]:
        directory = self._root / f"{name}.archive"
        with files.disk_full_reported(self._root):
            directory.mkdir(mode=0o700)
        try:
            yield directory
        finally:
            await in_thread(files.remove_tree, directory)

    def raw_disk(self, scratch: Path) -> Path:
        return scratch / _DISK

    async def pack(self, snapshot: Snapshot, token: bytes, memory: Path | None, scratch: Path) -> AsyncIterator[bytes]:
        entries = [Entry(_DISK, self.raw_disk(scratch))]
        if memory is not None:
            entries += [Entry(f"memory/{path.name}", path) for path in sorted(memory.iterdir())]
        archive = scratch / _ARCHIVE
        await in_stoppable_thread(_pack, archive, _head(snapshot, token), entries)
        file = await in_thread(archive.open, "rb")
        try:
            while piece := await in_thread(file.read, _PIECE):
                yield piece
        finally:
            file.close()

    async def receive(self, upload: AsyncIterator[bytes], scratch: Path) -> Archived:
        archive = scratch / _ARCHIVE
        await spool(((0, data) async for data in upload), archive, _MOST)
        return await in_thread(_read_head, archive)

    async def unpack(self, snapshot: Snapshot, memory: Path | None, scratch: Path) -> None:
        place = partial(_place, snapshot, memory, self.raw_disk(scratch))
        names = await in_stoppable_thread(_unpack, scratch / _ARCHIVE, place)
        if _DISK not in names or (memory is not None and len(names) == 1):
            raise _invalid("its disk or its memory is missing")


def _pack(stop: Stop, archive: Path, head: bytes, entries: list[Entry]) -> None:
    with files.new_file(archive, 0o600) as descriptor, open(descriptor, "wb", closefd=False) as file:
        write(file, head, entries, stop)


def _read_head(archive: Path) -> Archived:
    with open(archive, "rb") as file:
        return _archived(Reader(file).head())


def _unpack(stop: Stop, archive: Path, place: Any) -> set[str]:
    with open(archive, "rb") as file:
        reader = Reader(file)
        reader.head()
        return set(reader.receive(place, stop))


def _place(snapshot: Snapshot, memory: Path | None, disk: Path, name: str, size: int) -> Path:
    """Where a file goes. Raises BadFile for one that is not of it."""
    settings = snapshot.settings
    if name == _DISK and size == settings.disk_bytes:
        return disk
    match = _MEMORY_FILE.fullmatch(name)
    if match is None or memory is None or size > settings.memory_bytes + _MORE_THAN_RAM:
        raise _invalid(f"{name} of {size} bytes is not of a snapshot")
    return memory / match[1]


def _head(snapshot: Snapshot, token: bytes) -> bytes:
    settings = snapshot.settings
    machine = {name: getattr(settings, name) for name in (*_TEXTS, *_NUMBERS)}
    told = {
        "format": FORMAT,
        "name": snapshot.name,
        "created_at": snapshot.created_at.isoformat(),
        "vm": {"id": snapshot.vm_id, "name": snapshot.vm_name},
        "memory": snapshot.memory,
        "acceleration": snapshot.acceleration.value,
        "memory_key": snapshot.memory_key,
        "token": token.hex(),
        "pause": snapshot.pause_seconds,
        "labels": dict(snapshot.labels),
        "machine": {
            **machine,
            "acceleration": settings.acceleration.value,
            "nat": settings.nat,
            "init": settings.init.value,
            "env": dict(settings.env),
            "ssh_keys": list(settings.ssh_keys),
        },
    }
    return json.dumps(told, ensure_ascii=False).encode()


def _archived(head: bytes) -> Archived:
    try:
        told = json.loads(head)
        if told["format"] != FORMAT:
            raise _invalid(f"it is of format {told['format']!r:.20}, and {FORMAT} is known")
        machine = told["machine"]
        named: dict[str, Any] = {name: _line(machine[name]) for name in _TEXTS}
        named |= {name: _number(machine[name]) for name in _NUMBERS}
        settings = VmSettings(
            **named,
            acceleration=Acceleration(machine["acceleration"]),
            nat=_flag(machine["nat"]),
            init=Init(machine["init"]),
            env=_texts(machine["env"]),
            ssh_keys=tuple(_text(key, 16 * 1024) for key in machine["ssh_keys"]),
        )
        snapshot = Snapshot(
            id="",
            name=_line(told["name"]),
            owner=0,
            created_at=_time(told["created_at"]),
            vm_id=_vm_id(told["vm"]["id"]),
            vm_name=_line(told["vm"]["name"]),
            settings=settings,
            memory=_flag(told["memory"]),
            acceleration=Acceleration(told["acceleration"]),
            memory_key=_text(told["memory_key"], 64 * 1024),
            labels=_texts(told["labels"]),
            pause_seconds=min(max(0.0, float(told["pause"])), 1e6),
        )
        return Archived(snapshot, bytes.fromhex(_text(told["token"])))
    except IngleError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise _invalid(f"what it says of its snapshot can't be: {error!r:.100}") from None


def _text(value: Any, longest: int = _LONGEST_TEXT) -> str:
    if type(value) is not str or len(value) > longest or "\0" in value:
        raise ValueError("no text, or too long")
    return value


def _line(value: Any) -> str:
    if not _text(value, _LONGEST_LINE).isprintable():
        raise ValueError("no line of text")
    return str(value)


def _vm_id(value: Any) -> str:
    if not is_vm_id(_text(value)):
        raise ValueError("no id of a VM")
    return str(value)


def _time(value: Any) -> datetime:
    time = datetime.fromisoformat(_line(value)).astimezone(UTC)
    if not _EARLIEST < time.year < _LATEST:
        raise ValueError("no time of ours")
    return time


def _number(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 50:
        raise ValueError("no number, or too large")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("neither true nor false")
    return value


def _texts(value: Any) -> Mapping[str, str]:
    if type(value) is not dict:
        raise ValueError("no object")
    return {_text(key): _text(each, 128 * 1024) for key, each in value.items()}


def _invalid(why: str) -> BadFile:
    return BadFile(Reason.ARCHIVE_INVALID, f"the archive is damaged, or none of a snapshot: {why}")

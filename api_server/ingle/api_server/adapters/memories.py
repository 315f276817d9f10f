"""Implements ports.memories.Memories: a directory and, in it, a file that says what it takes to go on."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ingle.api_server.host.files import remove_tree, sync_directory, write_atomically
from ingle.api_server.host.threads import in_thread
from ingle.api_server.model.vm import Acceleration
from ingle.api_server.ports.engine import VmPaths
from ingle.api_server.ports.memories import SavedMemory

_MANIFEST = "manifest.json"
_FORMAT = 1
_LARGEST_MANIFEST = 64 * 1024


class LocalMemories:
    """In the VM's state directory."""

    async def begin(self, paths: VmPaths) -> Path:
        await self.remove(paths)
        new = _new(paths)
        new.mkdir(mode=0o700)
        return new

    async def publish(self, paths: VmPaths, saved: SavedMemory) -> None:
        await in_thread(_publish, paths, saved)

    async def find(self, paths: VmPaths) -> SavedMemory | None:
        try:
            with (paths.memory / _MANIFEST).open("rb") as file:
                told = json.loads(file.read(_LARGEST_MANIFEST))
            return _saved(paths.memory, told)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    async def remove(self, paths: VmPaths) -> None:
        for directory in (_new(paths), paths.memory):
            if directory.exists():
                await in_thread(remove_tree, directory)


def _new(paths: VmPaths) -> Path:
    return paths.memory.with_name("memory.new")


def _publish(paths: VmPaths, saved: SavedMemory) -> None:
    new = _new(paths)
    told = {
        "format": _FORMAT,
        **asdict(saved),
        "acceleration": saved.acceleration.value,
        "files": _sizes(new),
    }
    write_atomically(new / _MANIFEST, json.dumps(told).encode(), 0o600)
    new.rename(paths.memory)
    sync_directory(paths.memory.parent)


def _saved(directory: Path, told: dict[str, Any]) -> SavedMemory | None:
    if told["format"] != _FORMAT or told["files"] != _sizes(directory):
        return None
    return SavedMemory(
        disk_generation=int(told["disk_generation"]),
        key=str(told["key"]),
        acceleration=Acceleration(told["acceleration"]),
        boot_id=str(told["boot_id"]),
    )


def _sizes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(directory.iterdir()) if path.name != _MANIFEST}

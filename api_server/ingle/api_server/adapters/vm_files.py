"""Implements ports.vm_files.VmFiles."""

import asyncio
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from pathlib import Path

from ingle.api_server.host.bounded_log import read_end
from ingle.api_server.host.files import disk_full_reported, free_bytes, remove_tree, sync_directory, sync_tree
from ingle.api_server.host.log_reader import LogReader
from ingle.api_server.host.threads import in_thread
from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.ports.engine import VmPaths
from ingle.api_server.ports.vm_files import LogWish, Said

_POLL_SECONDS = 0.1
_NEW_DISK = "disk-of-"
_FORMER_DISK = "former-disk"


class LocalVmFiles:
    """Two directories a VM: one below the state root, one below the runtime root."""

    def __init__(self, state_root: Path, runtime_root: Path) -> None:
        self._state_root = state_root
        self._runtime_root = runtime_root

    def paths(self, vm_id: str) -> VmPaths:
        return VmPaths(state=self._state_root / vm_id, runtime=self._runtime_root / vm_id)

    def create_state(self, paths: VmPaths) -> None:
        paths.state.mkdir(mode=0o700)

    async def remove_state(self, paths: VmPaths) -> None:
        await asyncio.to_thread(remove_tree, paths.state)

    async def begin_disk(self, paths: VmPaths, snapshot_id: str) -> Path:
        await self.drop_new_disks(paths)
        directory = paths.state / f"{_NEW_DISK}{snapshot_id}"
        with disk_full_reported(paths.state):
            directory.mkdir(mode=0o700)
        return directory

    async def swap_disk(self, paths: VmPaths, snapshot_id: str) -> None:
        directory = paths.state / f"{_NEW_DISK}{snapshot_id}"
        with disk_full_reported(paths.state):
            await in_thread(_exchange, directory, paths.state / _FORMER_DISK)

    async def put_disk_back(self, paths: VmPaths) -> None:
        with disk_full_reported(paths.state):
            await in_thread(_move_up, paths.state / _FORMER_DISK)

    async def drop_former_disk(self, paths: VmPaths) -> None:
        await in_thread(remove_tree, paths.state / _FORMER_DISK)

    async def drop_new_disks(self, paths: VmPaths) -> None:
        for directory in paths.state.glob(f"{_NEW_DISK}*"):
            await in_thread(remove_tree, directory)

    def create_runtime(self, paths: VmPaths) -> None:
        remove_tree(paths.runtime)
        try:
            paths.runtime.mkdir(mode=0o700, parents=True)
        except (FileNotFoundError, PermissionError) as error:
            raise HostProblem(
                Reason.DEPENDENCY_MISSING,
                f"{paths.runtime} can't be made ({error.strerror}): a runtime directory goes when its user logs out",
                "loginctl enable-linger, and log in again",
            ) from error

    def remove_initramfs(self, paths: VmPaths) -> None:
        paths.initramfs.unlink(missing_ok=True)

    async def remove_runtime(self, paths: VmPaths) -> None:
        paths.control_socket.unlink(missing_ok=True)
        paths.agent_socket.unlink(missing_ok=True)
        await asyncio.to_thread(remove_tree, paths.written)
        await asyncio.to_thread(remove_tree, paths.runtime)

    def of_others(self, known: Collection[str]) -> list[Path]:
        return sorted(path for path in self._state_root.iterdir() if path.name not in known and path.is_dir())

    def allocated_bytes(self, file: Path) -> int:
        try:
            return file.stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def free_bytes(self, paths: VmPaths) -> int:
        return free_bytes(paths.state.parent)

    def tail(self, file: Path, size: int) -> str:
        return read_end(file, size).decode(errors="replace")

    async def stream(self, file: Path, wish: LogWish) -> AsyncIterator[Said]:
        first = True
        while True:
            ending = wish.until is not None and datetime.now(UTC) >= wish.until
            try:
                log = LogReader(file, wish.until)
            except FileNotFoundError:
                if not wish.follow or ending or not file.parent.exists():
                    return
                await asyncio.sleep(_POLL_SECONDS)
                continue
            with log:
                if first:  # a file that takes this one's place is new from its first line
                    await in_thread(log.seek, wish.since, wish.tail_lines)
                    first = False
                while True:
                    # Asked first: what comes after is read below.
                    replaced = log.replaced
                    ending = wish.until is not None and datetime.now(UTC) >= wish.until
                    said = await in_thread(log.read)
                    if said is not None:
                        for data, time in said:
                            yield Said(data, time)
                    elif not wish.follow or log.ended or ending:
                        return
                    elif replaced:
                        break
                    else:
                        await asyncio.sleep(_POLL_SECONDS)


def _exchange(directory: Path, former: Path) -> None:
    """As _move_up; what had those names goes to `former`."""
    sync_tree(directory)
    former.mkdir(mode=0o700)
    for path in directory.iterdir():
        place = directory.parent / path.name
        place.rename(former / path.name)
        path.rename(place)
    sync_directory(former)
    sync_directory(directory.parent)
    directory.rmdir()


def _move_up(directory: Path) -> None:
    """All that is in a directory into the one above, in the place of what has that name, and the directory goes."""
    if not directory.exists():
        return
    sync_tree(directory)
    for path in directory.iterdir():
        path.rename(directory.parent / path.name)
    sync_directory(directory.parent)
    directory.rmdir()

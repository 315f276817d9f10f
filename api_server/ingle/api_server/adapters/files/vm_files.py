"""Implements ports.files.VmFiles."""

import asyncio
import os
from collections.abc import AsyncIterator, Collection
from pathlib import Path

from ingle.api_server.host.bounded_log import pieces_backwards, read_end, written_behind
from ingle.api_server.host.files import free_bytes, remove_tree
from ingle.api_server.host.threads import in_thread
from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.ports.engine import VmPaths

_CHUNK = 64 * 1024
_POLL_SECONDS = 0.1
_MISSING = b"\n[ingle: %d bytes are missing here: they came faster than they were read]\n"


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

    async def remove_runtime(self, paths: VmPaths) -> None:
        paths.control_socket.unlink(missing_ok=True)
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

    async def stream(self, file: Path, *, follow: bool, tail_lines: int | None) -> AsyncIterator[bytes]:
        while True:
            try:
                source = file.open("rb")
            except FileNotFoundError:
                if not follow or not file.parent.exists():
                    return
                await asyncio.sleep(_POLL_SECONDS)
                continue
            with source:
                if tail_lines is not None:
                    await in_thread(_seek_to_last_lines, source.fileno(), tail_lines)
                    tail_lines = None  # a file that takes this one's place is new from its first line
                begun = False
                while True:
                    replaced = os.fstat(source.fileno()).st_nlink == 0  # asked first: what comes after is read below
                    missing, data = await in_thread(_read_behind_holes, source.fileno())
                    if data:
                        if missing and begun:
                            yield _MISSING % missing
                        begun = True
                        yield data
                    elif not follow:
                        return
                    elif replaced:
                        break
                    else:
                        await asyncio.sleep(_POLL_SECONDS)


def _read_behind_holes(file: int) -> tuple[int, bytes]:
    """How much was forgotten of what comes next, and the next bytes behind that. What is forgotten is the beginning of
    all that was written; a hole in the middle is where nothing was."""
    position = os.lseek(file, 0, os.SEEK_CUR)
    start, stop = written_behind(file, position)
    data = os.pread(file, min(stop - start, _CHUNK), start)
    forgotten = bool(data) and start > position and start == written_behind(file, 0)[0]
    os.lseek(file, start + len(data) if data else position, os.SEEK_SET)  # it was moved to look for holes
    return start - position if forgotten else 0, data


def _seek_to_last_lines(file: int, lines: int) -> None:
    """Leave `file` at the start of its last `lines` lines, reading backwards from the end."""
    end = position = os.lseek(file, 0, os.SEEK_END)
    wanted = lines
    for start, block in pieces_backwards(file, _CHUNK) if lines else ():
        # The newline at the very end ends the last line; it does not begin another.
        wanted += position == end and block.endswith(b"\n")
        position = start
        if (newlines := block.count(b"\n")) < wanted:
            wanted -= newlines
            continue
        offset = len(block)
        for _ in range(wanted):
            offset = block.rindex(b"\n", 0, offset)
        os.lseek(file, start + offset + 1, os.SEEK_SET)
        return
    os.lseek(file, position if lines else end, os.SEEK_SET)

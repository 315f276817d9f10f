"""The memory and devices of a guest in files.

QEMU writes and reads them as for a migration to another host: `stream` is all of that. A memory that VMs are to share
is `ram`, which QEMU maps, and `state`, all the rest. Which of the two it is, the seal tells by what it is on: what else
there may be is of somebody who was killed.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingle.api_server.adapters.qemu.stream import UnknownStream, split
from ingle.api_server.adapters.vmm import seal
from ingle.api_server.host.files import new_file
from ingle.api_server.host.threads import in_stoppable_thread
from ingle.api_server.model.errors import Reason, ToolFailed

_MODE = 0o600
_STREAM, _RAM, _STATE = "stream", "ram", "state"
_LAYOUTS = {frozenset({_STREAM}): False, frozenset({_RAM, _STATE}): True}


@dataclass(frozen=True, slots=True)
class Memory:
    """A directory with one, which VMs map if it is `shared`."""

    directory: Path
    shared: bool

    @property
    def ram(self) -> Path:
        """As long as the guest's memory. QEMU 7.2 opens it for writing also where it maps it privately."""
        return self.directory / _RAM

    @contextmanager
    def opened(self) -> Iterator[int]:
        """What QEMU is to read."""
        descriptor = os.open(self.directory / (_STATE if self.shared else _STREAM), os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def sealed(directory: Path) -> Memory:
    """The one there. Raises ToolFailed(VMM_FAILED) where there is none of QEMU's."""
    names = seal.names(directory)
    if names not in _LAYOUTS:
        raise ToolFailed(Reason.VMM_FAILED, f"the memory in {directory} is not QEMU's: {', '.join(sorted(names))}")
    return Memory(directory, _LAYOUTS[names])


@asynccontextmanager
async def writing(directory: Path) -> AsyncIterator[int]:
    """A new stream, for the block to write and sealed behind it. If that fails, nothing is there.

    Raises HostProblem(DISK_FULL)."""
    stream = directory / _STREAM
    with new_file(stream, _MODE) as descriptor:
        try:
            async with seal.sealing(stream):
                yield descriptor
        except BaseException:
            (directory / seal.SEAL).unlink(missing_ok=True)
            raise


async def share(memory: Memory, name: str, size_bytes: int) -> None:
    """Have it be one that VMs map, of a guest whose memory has that name in the stream. If that fails, it is what it
    was. Raises HostProblem(DISK_FULL), ToolFailed(VMM_FAILED)."""
    directory = memory.directory
    _clear(directory)
    try:
        with (
            memory.opened() as stream,
            new_file(directory / _RAM, _MODE) as ram,
            new_file(directory / _STATE, _MODE) as state,
        ):
            os.ftruncate(ram, size_bytes)
            try:
                await in_stoppable_thread(split, stream, ram, state, name)
            except UnknownStream as error:
                raise ToolFailed(
                    Reason.VMM_FAILED, f"the memory in {directory} is not as this ingle knows it from QEMU: {error}"
                ) from error
            await seal.write(directory, directory / _RAM, directory / _STATE)
    finally:
        _clear(directory)


def _clear(directory: Path) -> None:
    """Remove what the seal is not on."""
    for name in {_STREAM, _RAM, _STATE} - seal.names(directory):
        (directory / name).unlink(missing_ok=True)

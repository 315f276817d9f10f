"""The memory and devices of a guest in files, as Firecracker has them: `ram`, which it maps privately, and `vmstate`.

So any number of VMs that go on from one share its pages until they write to them, and nothing has to be done for it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingle.api_server.adapters.vmm import seal
from ingle.api_server.host.files import new_file, punch_zeros, remove_tree
from ingle.api_server.host.threads import in_stoppable_thread
from ingle.api_server.model.errors import Reason, ToolFailed

_MODE = 0o600
_RAM, _STATE = "ram", "vmstate"


@dataclass(frozen=True, slots=True)
class Memory:
    """A directory with one."""

    directory: Path

    @property
    def ram(self) -> Path:
        """As long as the guest's memory."""
        return self.directory / _RAM

    @property
    def state(self) -> Path:
        """All the rest."""
        return self.directory / _STATE


def sealed(directory: Path) -> Memory:
    """The one there. Raises ToolFailed(VMM_FAILED) where there is none of Firecracker's."""
    names = seal.names(directory)
    if names != {_RAM, _STATE}:
        raise ToolFailed(
            Reason.VMM_FAILED, f"the memory in {directory} is not Firecracker's: {', '.join(sorted(names))}"
        )
    return Memory(directory)


@contextmanager
def writing(directory: Path, seen: Path) -> Iterator[Memory]:
    """New files for Firecracker to fill, to be sealed. If the block fails, there is nothing. Until it ends they have
    other names as well, in the new directory `seen`, by which Firecracker is to know them."""
    memory, linked = Memory(directory), Memory(seen)
    remove_tree(seen)  # of who was killed
    with new_file(memory.ram, _MODE), new_file(memory.state, _MODE):
        try:
            seen.mkdir(0o700)
            _lead(linked.ram, memory.ram)
            _lead(linked.state, memory.state)
            yield memory
        except BaseException:
            (directory / seal.SEAL).unlink(missing_ok=True)
            raise
        finally:
            remove_tree(seen)


def _lead(name: Path, file: Path) -> None:
    """Another name of a file. On another file system it is a link by path, which leads nowhere for who sees little."""
    try:
        name.hardlink_to(file)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        name.symlink_to(file)


async def finish(memory: Memory) -> None:
    """What was written is whole: it takes no room for zeros, and has a seal. Raises HostProblem(DISK_FULL), OSError."""
    await in_stoppable_thread(punch_zeros, memory.ram)
    await seal.write(memory.directory, memory.ram, memory.state)

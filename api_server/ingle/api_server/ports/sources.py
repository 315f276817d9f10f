"""Where images and kernels come from, and where they are kept."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from ingle.api_server.model.image_config import ImageConfig
from ingle.api_server.model.image_reference import Login

Report = Callable[[str, float | None], None]
"""Progress for a person: what is being done, and how much of it (0 to 1, None when that can't be known)."""


class Piece(NamedTuple):
    """Of a file: zeros that need not be written, then data."""

    hole: int
    data: bytes


Upload = AsyncIterator[Piece]
"""A file as its caller sends it. One that stops early raises."""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """Something that can be pulled."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What was found out while unpacking a kernel."""

    release: str
    modules: tuple[str, ...]
    """Of the initramfs, in load order."""
    disk_modules: int = 0
    """How many are on the disk that all guests share; 0: there is no such disk."""
    disk_bytes: int = 0
    """How long that is."""


class Loaded(NamedTuple):
    """What an archive says of an image in it: `name` may be empty, and is whatever its maker wrote."""

    name: str
    config: ImageConfig


class Exported(NamedTuple):
    """What an archive says of the image in it: `name` is whole, or empty; None: it doesn't say how it is to be run."""

    name: str
    created_at: datetime
    config: ImageConfig | None


class ImageSource(Protocol):
    """Makes root file systems. Everything is written below `into`, an empty directory of the caller's; the result is
    `into/rootfs.ext4`. Cancelling kills the tools and waits for them.

    Raises BadFile(IMAGE_INVALID), HostProblem (missing tool, disk full), ToolFailed."""

    def catalog(self) -> tuple[CatalogEntry, ...]:
        """Names that `pull` knows."""

    async def pull(self, name: str, into: Path, report: Report) -> None:
        """Make the catalog's `name`."""

    async def fetch(self, reference: str, logins: Mapping[str, Login], into: Path, report: Report) -> ImageConfig:
        """Bring an image from a registry, by a whole reference, for who has these logins (by host).

        Raises NotFound(IMAGE_NOT_FOUND), InvalidArgument, HostProblem: REGISTRY_DENIED, REGISTRY_UNREACHABLE."""

    async def receive(self, rootfs: Upload, into: Path, report: Report) -> None:
        """Take a tar archive (any usual compression) or an ext4 image. Whoever sends it is not trusted."""

    async def load(self, images: Upload, called: str, into: Path, report: Report) -> Loaded:
        """Take an archive of images with their layers, an OCI layout or docker's, and of it the image that it calls
        so; its only one if `called` is empty. Whoever sends it is not trusted.

        Raises NotFound(IMAGE_NOT_FOUND) for one that is not in it, InvalidArgument where it has several."""

    async def promote(self, write: Callable[[Path], Awaitable[None]], into: Path, report: Report) -> None:
        """Take a disk that had a root file system once, and whose guest is not trusted: `write` makes it a new file.
        What was deleted on it is not in the image."""

    async def export(self, image: Path, about: Exported, archive: Path) -> None:
        """Write the new file `archive`, an OCI layout that docker reads, too, of `image`, an ext4 file whose content
        may be anybody's. Raises BadFile(IMAGE_INVALID) for what can't be read."""


class KernelSource(Protocol):
    """Makes kernels: `into/vmlinux`, an uncompressed ELF; `into/modules/NN-name.ko` in load order; and, where the
    kernel can read it, `into/modules.squashfs` with all of its modules.

    Raises BadFile(KERNEL_INVALID), HostProblem, ToolFailed."""

    def catalog(self) -> tuple[CatalogEntry, ...]:
        """Names that `pull` knows."""

    async def pull(self, name: str, into: Path, report: Report) -> KernelFacts:
        """Make the catalog's `name`."""

    def needed_modules(self) -> tuple[str, ...]:
        """Names of what a guest loads before it has a root file system, less what those need."""

    async def receive(self, kernel: Upload, into: Path, report: Report) -> KernelFacts:
        """Take a vmlinux or bzImage, or a tar archive with that as `kernel` beside what is in its lib/modules/RELEASE,
        below `modules`. Whoever sends it is not trusted."""


class Sealed(NamedTuple):
    """A workspace that changes no more: its id, and how long its files are together."""

    id: str
    size_bytes: int


class Library(Protocol):
    """A content-addressed directory: <root>/<id>/… is complete or absent, whatever kills the server."""

    def path(self, item_id: str) -> Path:
        """The directory of an item."""

    def workspace(self, op_id: str) -> AbstractAsyncContextManager[Path]:
        """An empty directory on the library's file system; gone when the context is left, if it was not published."""

    def allocated_bytes(self, item_id: str) -> int:
        """Blocks that an item's files really take; 0 when it is absent."""

    def pieces(self, file: Path) -> AsyncIterator[bytes]:
        """The content of a file in a workspace."""

    async def seal(self, workspace: Path) -> Sealed:
        """Hash what is in the workspace (SHA-256, relative names and contents), and sync it: nothing in there changes
        any more. The id of a lone file is its own hash. It takes as long as the content is, and can be cancelled."""

    async def publish(self, workspace: Path, item_id: str) -> None:
        """Rename a sealed workspace to its id in one step; when that is there already, it is dropped."""

    async def remove(self, item_id: str) -> None:
        """Delete an item: renamed aside first, so that nobody sees half of one. Absent is fine."""

    async def sweep(self, known: Collection[str] | None) -> None:
        """Remove what a dead server left: workspaces, half-removed items, and items that are not `known` (published,
        and then nobody lived to record them; None keeps every item). Only for start-up."""

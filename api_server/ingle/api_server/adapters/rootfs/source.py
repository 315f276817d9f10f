"""ImageSource: makes rootfs.ext4 from whatever it is given, in scratch space that is gone afterwards."""

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from ingle.api_server.adapters.rootfs import bootstrap, contents, ext4
from ingle.api_server.adapters.rootfs.problem import bad
from ingle.api_server.adapters.rootfs.registry import Registries
from ingle.api_server.host import compression
from ingle.api_server.host.child import TooMuch, in_child, limited
from ingle.api_server.host.rootlike import remove_tree
from ingle.api_server.host.spool import check_room, spool, write_all
from ingle.api_server.host.threads import in_thread
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import NotFound, Reason
from ingle.api_server.model.image_config import ImageConfig
from ingle.api_server.model.image_reference import Login
from ingle.api_server.model.spec import MOST_DISK
from ingle.api_server.ports.sources import CatalogEntry, Exported, Loaded, Report, Upload

R = TypeVar("R")

# One command, because a fakeroot forgets at its end which owners and devices the files of an ordinary user stand for.
_UNPACK_THEN = """
tar --extract --file="$1" --directory="$2" --numeric-owner --preserve-permissions --same-owner
shift 2
exec "$@"
"""


class RootFileSystems:
    """Implements ports.sources.ImageSource."""

    def __init__(self, tools: Tools, registries: Registries | None = None) -> None:
        """Without `registries`, none can be asked."""
        self._tools = tools
        self._registries = registries

    def catalog(self) -> tuple[CatalogEntry, ...]:
        return bootstrap.CATALOG

    async def pull(self, name: str, into: Path, report: Report) -> None:
        if name not in bootstrap.RECIPES:
            raise NotFound(
                Reason.IMAGE_NOT_FOUND,
                f"the catalog has no image {name!r}; it has: {', '.join(bootstrap.RECIPES)}",
                f"ingle image pull {next(iter(bootstrap.RECIPES))}",
            )
        scratch = _scratch(into)
        archive = scratch / "rootfs.tar"
        await bootstrap.make_archive(self._tools, bootstrap.RECIPES[name], archive, scratch, report)
        await self._from_archive(archive, into, scratch, report)
        await remove_tree(self._tools, scratch)

    async def fetch(self, reference: str, logins: Mapping[str, Login], into: Path, report: Report) -> ImageConfig:
        assert self._registries is not None
        scratch = _scratch(into)
        archive = scratch / "rootfs.tar"
        report(f"asking for {reference}", None)
        brought = await self._registries.bring(reference, logins, archive, report)
        await self._from_archive(archive, into, scratch, report, brought.uuid)
        await remove_tree(self._tools, scratch)
        return brought.config

    async def receive(self, rootfs: Upload, into: Path, report: Report) -> None:
        report("receiving the root file system", None)
        sent = _scratch(into) / "sent"
        await spool(rootfs, sent, MOST_DISK)
        await self.convert(sent, into, report)

    async def load(self, images: Upload, called: str, into: Path, report: Report) -> Loaded:
        assert self._registries is not None
        report("receiving the archive", None)
        scratch = _scratch(into)
        sent, archive = scratch / "sent", scratch / "rootfs.tar"
        await spool(images, sent, MOST_DISK)
        if await in_thread(_is_compressed, sent):
            report("decompressing", None)
            plain = scratch / "plain"
            await self._in_child(decompress, sent, plain)
            sent.unlink()
            sent = plain
        brought = await self._registries.unpack(sent, called, archive, report)
        sent.unlink()
        await self._from_archive(archive, into, scratch, report, brought.uuid)
        await remove_tree(self._tools, scratch)
        return Loaded(brought.name, brought.config)

    async def promote(self, write: Callable[[Path], Awaitable[None]], into: Path, report: Report) -> None:
        image = into / "rootfs.ext4"
        report("copying the disk", None)
        await write(image)
        if await in_thread(_kind, image) != "ext4":
            raise bad("the guest has overwritten the file system on its disk")
        report("checking the image", None)
        await ext4.repair(self._tools, image, discard=True)
        await ext4.shrink(self._tools, image)

    async def export(self, image: Path, about: Exported, archive: Path) -> None:
        assert self._registries is not None
        await self._registries.export(image, about, archive)

    async def convert(self, rootfs: Path, into: Path, report: Report) -> None:
        """Take a file of our own."""
        scratch = _scratch(into)
        match await in_thread(_kind, rootfs):
            case "ext4":
                await self._from_ext4(rootfs, into, report)
            case "compressed":
                report("decompressing", None)
                archive = scratch / "rootfs.tar"
                await self._in_child(decompress, rootfs, archive)
                await self._from_archive(archive, into, scratch, report)
            case _:
                await self._from_archive(rootfs, into, scratch, report)
        await remove_tree(self._tools, scratch)

    async def _from_archive(
        self, archive: Path, into: Path, scratch: Path, report: Report, uuid: str = ext4.UUID
    ) -> None:
        report("reading the archive", None)
        content = contents.Contents(*await self._in_child(ext4.measured, archive, scratch))
        await in_thread(check_room, into, 2 * archive.stat().st_size)
        tree = scratch / "tree"
        tree.mkdir(mode=0o755)
        report("making the ext4 image", None)
        image = into / "rootfs.ext4"
        make = ext4.make_command(content, tree, image, uuid)
        await self._tools.run([*_may_own(), *limited("sh"), "-e", "-c", _UNPACK_THEN, "sh", archive, tree, *make])
        await ext4.set_xattrs(self._tools, image, scratch)

    async def _in_child(self, function: Callable[..., R], source: Path, *arguments: Path) -> R:
        try:
            return await in_child(self._tools, function, source, *arguments)
        except TooMuch:
            raise bad("it takes too much to be read") from None

    async def _from_ext4(self, source: Path, into: Path, report: Report) -> None:
        image = into / "rootfs.ext4"
        report("copying the image", None)
        await self._tools.run(["cp", "--sparse=always", "--reflink=auto", source, image])
        # Whole blocks, which is what a disk by device-mapper takes.
        await in_thread(os.truncate, image, -(-image.stat().st_size // ext4.BLOCK) * ext4.BLOCK)
        report("checking the image", None)
        await ext4.repair(self._tools, image)


def _may_own() -> tuple[str, ...]:
    """What to put before a command that gives files to others."""
    return () if os.getuid() == 0 else ("fakeroot", "--")


def _is_compressed(path: Path) -> bool:
    with open(path, "rb") as file:
        return compression.compression_of(file.read(compression.MAGIC_LENGTH)) is not None


def _kind(rootfs: Path) -> str:
    """`ext4`, `compressed`, or `archive` for all else. Raises BadFile(IMAGE_INVALID)."""
    with open(rootfs, "rb") as file:
        head = file.read(compression.MAGIC_LENGTH)
    superblock = ext4.read_superblock(rootfs)
    if not head:
        raise bad("it is empty")
    if superblock is not None:
        ext4.check_superblock(superblock, rootfs)
        return "ext4"
    return "archive" if compression.compression_of(head) is None else "compressed"


def decompress(source: str, target: str) -> None:
    """Write the content of a compressed file to a new one. For in_child. Raises BadFile, HostProblem(DISK_FULL)."""
    try:
        with open(source, "rb") as reader:
            write_all(compression.decompressed(reader), Path(target))
    except (compression.Corrupt, compression.Unsupported) as error:
        raise bad(str(error)) from error


def _scratch(into: Path) -> Path:
    scratch = into / ".scratch"
    scratch.mkdir(mode=0o700, exist_ok=True)
    return scratch

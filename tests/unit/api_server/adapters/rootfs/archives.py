"""Tar archives made up in memory."""

import io
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from ingle.api_server.ports.sources import ImageSource, Piece
from uploading import archive_of

Change = Callable[[tarfile.TarInfo], None]


class Archive:
    """Add members, then `save`. Names are taken as they are, hostile ones too."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def file(self, name: str, data: bytes = b"data", *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> "Archive":
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.uid, info.gid = len(data), mode, uid, gid
        self._tar.addfile(info, io.BytesIO(data))
        return self

    def directory(self, name: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> "Archive":
        return self._add(name, tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)

    def symlink(self, name: str, target: str) -> "Archive":
        return self._add(name, tarfile.SYMTYPE, linkname=target, mode=0o777)

    def hard_link(self, name: str, target: str) -> "Archive":
        return self._add(name, tarfile.LNKTYPE, linkname=target)

    def device(self, name: str, major: int, minor: int) -> "Archive":
        return self._add(name, tarfile.CHRTYPE, devmajor=major, devminor=minor, mode=0o600)

    def with_xattr(self, name: str, data: bytes, xattr: str, value: bytes) -> "Archive":
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.pax_headers = {f"SCHILY.xattr.{xattr}": value.decode("utf-8", "surrogateescape")}
        self._tar.addfile(info, io.BytesIO(data))
        return self

    def content(self) -> bytes:
        """The finished archive."""
        self._tar.close()
        return self._buffer.getvalue()

    def save(self, path: Path) -> Path:
        """Write it; answers `path`."""
        path.write_bytes(self.content())
        return path

    def _add(self, name: str, kind: bytes, **fields: object) -> "Archive":
        info = tarfile.TarInfo(name)
        info.type = kind
        for field, value in fields.items():
            setattr(info, field, value)
        self._tar.addfile(info)
        return self


async def receive(source: ImageSource, rootfs: Path, into: Path) -> None:
    """Send a file, or a directory as an archive."""
    await source.receive(pieces(archive_of({".": rootfs}) if rootfs.is_dir() else rootfs.read_bytes()), into, _ignore)


async def pieces(content: bytes) -> AsyncIterator[Piece]:
    """As a caller sends them."""
    for at in range(0, len(content), 1 << 20):
        yield Piece(0, content[at : at + (1 << 20)])


def _ignore(text: str, fraction: float | None) -> None:
    """Nobody listens."""

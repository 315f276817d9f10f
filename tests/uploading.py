"""Requests that send an image or a kernel, as any client would."""

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ingle.v1 import image_pb2, kernel_pb2
from ingle.v1.upload_pb2 import UploadEnd

_PIECE = 1 << 20


def image_upload(name: str, rootfs: Path | bytes) -> Iterator[image_pb2.RegisterImageRequest]:
    """A file as it is, a directory as an archive."""
    if isinstance(rootfs, Path):
        rootfs = archive_of({".": rootfs}) if rootfs.is_dir() else rootfs.read_bytes()
    yield from sent_image(image_pb2.RegisterImageStart(name=name, source="a test"), rootfs)


def sent_image(start: image_pb2.RegisterImageStart, content: bytes) -> Iterator[image_pb2.RegisterImageRequest]:
    """Content of any kind."""
    yield image_pb2.RegisterImageRequest(start=start)
    for at in range(0, len(content), _PIECE):
        yield image_pb2.RegisterImageRequest(data=content[at : at + _PIECE])
    yield image_pb2.RegisterImageRequest(end=UploadEnd())


def kernel_upload(
    name: str, kernel: Path | bytes, modules: Path | None = None
) -> Iterator[kernel_pb2.ImportKernelRequest]:
    """A kernel, as part of an archive where there are modules. Its source is its path, which opens nothing."""
    source = str(kernel) if isinstance(kernel, Path) else "a test"
    yield kernel_pb2.ImportKernelRequest(start=kernel_pb2.ImportKernelStart(name=name, source=source))
    if isinstance(kernel, Path):
        kernel = kernel.read_bytes() if modules is None else archive_of({"kernel": kernel, "modules": modules})
    for at in range(0, len(kernel), _PIECE):
        yield kernel_pb2.ImportKernelRequest(data=kernel[at : at + _PIECE])
    yield kernel_pb2.ImportKernelRequest(end=UploadEnd())


def archive_of(members: Mapping[str, Path]) -> bytes:
    """A tar of files and directories, under these names, whose files are root's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in members.items():
            tar.add(path, name, filter=lambda member: member.replace(uid=0, gid=0, deep=False))
    return buffer.getvalue()

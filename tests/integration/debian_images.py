"""Debian images with packages that a test needs, made as the catalog's are, and kept where the prepared ones are."""

import asyncio
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

from harness import Server, exclusively
from ingle.api_server.adapters.rootfs import bootstrap
from ingle.api_server.host.tool import Tools
from uploading import image_upload

_SUITE = "bookworm"


def debian_with(server: Server, kept_in: Path, name: str, packages: Sequence[str]) -> str:
    """An image of that name, of Debian with those packages: made once for all servers whose files are kept there."""
    kept = kept_in / f"{name}-{zlib.crc32(' '.join(packages).encode()):08x}.ext4"
    with exclusively(kept_in / f"{name}.lock"):
        if kept.exists():
            server.images.RegisterImage(image_upload(name, kept))
            return name
        scratch = kept_in / f"{name}.scratch"
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
        scratch.mkdir()
        archive = scratch / "root.tar"
        recipe = bootstrap.Recipe(_SUITE, tuple(packages))
        asyncio.run(bootstrap.make_archive(Tools(scratch), recipe, archive, scratch, lambda _, __: None))
        image = server.images.RegisterImage(image_upload(name, archive)).image
        shutil.rmtree(scratch)
        new = kept.with_suffix(".new")
        shutil.copyfile(server.state / "images" / image.id / "rootfs.ext4", new)
        new.rename(kept)
    return name

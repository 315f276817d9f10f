"""Images in files and directories of this machine, as skopeo and podman name them: oci:DIR, oci-archive:FILE,
docker-archive:FILE, each perhaps with :NAME, and - for an archive that comes through a pipe."""

import os
from dataclasses import dataclass
from pathlib import Path

from ingle.cli.client import Client
from ingle.cli.errors import failed
from ingle.cli.sending import STDIN, described, opened, send_archive, send_file, sent
from ingle.cli.stages import Stages
from ingle.cli.uploads import Upload
from ingle.v1 import image_pb2

_LAYOUT, _ARCHIVES = "oci", ("oci-archive", "docker-archive")
_TRANSPORTS = (_LAYOUT, *_ARCHIVES)
_OF_LAYOUT = ("index.json", "oci-layout", "blobs")


@dataclass(frozen=True)
class ImageArchive:
    """One of them: `called` is what it calls the image that is meant; empty: it has one."""

    path: str
    called: str = ""

    @staticmethod
    def parse(text: str) -> "ImageArchive | None":
        """What `text` names; None for what a registry or the catalog has. Raises CliError."""
        transport, colon, rest = text.partition(":")
        if text == STDIN:
            return ImageArchive(STDIN)
        # A registry's image with such a name has a tag, and no file has that for its own.
        if not colon or transport not in _TRANSPORTS:
            return None
        path, called = _split(rest)
        if not path:
            raise failed("INVALID_ARGUMENT", f"{text}: names no file", f"ingle image pull {transport}:PATH[:NAME]")
        if transport == _LAYOUT and not Path(path).is_dir():
            raise failed("INVALID_ARGUMENT", f"{path}: no directory", f"ingle image pull oci-archive:{path}")
        return ImageArchive(path, called)

    def load(self, client: Client, name: str, stages: Stages) -> image_pb2.Image:
        """Send it, read with the rights of who calls. Raises CliError."""
        what = described(self.path)
        start = image_pb2.RegisterImageStart(name=name, source=what, archive=True, archived_as=self.called)
        with opened(self.path) as descriptor:
            request = image_pb2.RegisterImageRequest(start=start)
            upload = Upload(
                client,
                client.begin(request, image_pb2.RegisterImageResponse, last=False),
                image_pb2.RegisterImageRequest,
            )

            def send(upload: Upload[image_pb2.RegisterImageResponse]) -> None:
                if not os.path.isdir(self.path):
                    send_file(descriptor, what, upload, stages)
                    return
                root = Path(self.path).resolve()
                parts = [(root / part, part) for part in _OF_LAYOUT if (root / part).exists()]
                send_archive(parts or [(root, ".")], self.path, upload, stages)

            return sent(upload, send, f"Making an image of {what}", stages).image


def _split(rest: str) -> tuple[str, str]:
    """PATH[:NAME], where both may have colons: what is there is a path."""
    if os.path.lexists(rest):
        return rest, ""
    pieces = rest.split(":")
    for count in range(len(pieces) - 1, 0, -1):
        path = ":".join(pieces[:count])
        if os.path.lexists(path):
            return path, ":".join(pieces[count:])
    return rest, ""

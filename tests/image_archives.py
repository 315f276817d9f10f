"""Images in archives, as OCI's layout has them and as docker save writes them, whose every byte a test chooses."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from oci_registry import digest_of

_OCI = "application/vnd.oci.image"


class ImageArchive:
    """Add what is to be in it, then `content`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._links: dict[str, str] = {}

    def blob(self, data: bytes, kind: str = "") -> dict[str, Any]:
        """Of a layout; answers its descriptor."""
        self.files[f"blobs/{digest_of(data).replace(':', '/')}"] = data
        return {"mediaType": f"{_OCI}.{kind}", "digest": digest_of(data), "size": len(data)}

    def image(
        self, layers: Sequence[bytes], config: Mapping[str, Any] | None = None, architecture: str = "amd64"
    ) -> dict[str, Any]:
        """One with layers in gzip; answers the descriptor of its manifest."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": self.blob(_configuration(layers, config, architecture), "config.v1+json"),
            "layers": [self.blob(gzip.compress(layer, 1, mtime=0), "layer.v1.tar+gzip") for layer in layers],
        }
        return self.blob(json.dumps(manifest).encode(), "manifest.v1+json")

    def many(self, images: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """One for many architectures, by architecture."""
        entries = [
            {**image, "platform": {"os": "linux", "architecture": architecture}}
            for architecture, image in images.items()
        ]
        index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": entries}
        return self.blob(json.dumps(index).encode(), "index.v1+json")

    def index(self, images: Mapping[str, Mapping[str, Any]]) -> "ImageArchive":
        """What the layout has, by whole names; an empty one is not told."""
        entries = [
            {**image, "annotations": {"org.opencontainers.image.ref.name": name}} if name else image
            for name, image in images.items()
        ]
        self.files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
        self.files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        return self

    def docker(self, images: Mapping[str, Sequence[bytes]], config: Mapping[str, Any] | None = None) -> "ImageArchive":
        """As docker save writes them, by tag. A layer that two have is a symlink in the second."""
        saved, places = [], dict[str, str]()
        for number, (tag, layers) in enumerate(images.items()):
            configuration = _configuration(layers, config, "amd64")
            name = f"{digest_of(configuration).partition(':')[2]}.json"
            self.files[name] = configuration
            paths = [f"{number}-{each}/layer.tar" for each in range(len(layers))]
            for path, layer in zip(paths, layers, strict=True):
                if (first := places.setdefault(digest_of(layer), path)) != path:
                    self._links[path] = f"../{first}"
                else:
                    self.files[path] = layer
            saved.append({"Config": name, "RepoTags": [tag] if tag else None, "Layers": paths})
        self.files["manifest.json"] = json.dumps(saved).encode()
        return self

    def content(self) -> bytes:
        """The archive."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, data in self.files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            for name, target in self._links.items():
                info = tarfile.TarInfo(name)
                info.type, info.linkname = tarfile.SYMTYPE, target
                tar.addfile(info)
        return made.getvalue()


def _configuration(layers: Sequence[bytes], config: Mapping[str, Any] | None, architecture: str) -> bytes:
    content = {
        "architecture": architecture,
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
    }
    return json.dumps(content).encode()

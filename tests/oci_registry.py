"""A real registry (Debian's docker-registry) at loopback, and images for it whose every byte a test chooses."""

import base64
import gzip
import hashlib
import http.client
import io
import json
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from free_ports import free_port

USER, PASSWORD = "reader", "let me in"
# bcrypt of PASSWORD: what docker-registry reads.
_HTPASSWD = "reader:$2b$04$TSPrqL6PPq24uCOezWXoR.Q1XNR4kKNdzG4RrCYF.nu7M3zq2tGjq"

_CONFIGURATION = """version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""
_AUTH = "auth: {{htpasswd: {{realm: test, path: {path}}}}}\n"

_OCI = "application/vnd.oci.image"
_COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "+gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "+zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "": lambda data: data,
}


@dataclass(frozen=True)
class Entry:
    """One of a layer. `type` is tarfile's; `pax` what only its headers can say."""

    name: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str] = field(default_factory=dict)


def directory(name: str, mode: int = 0o755, **more: Any) -> Entry:
    """A directory."""
    return Entry(name, type=tarfile.DIRTYPE, mode=mode, **more)


def symlink(name: str, to: str) -> Entry:
    """A symlink."""
    return Entry(name, type=tarfile.SYMTYPE, mode=0o777, link=to)


def hard_link(name: str, to: str) -> Entry:
    """A hard link."""
    return Entry(name, type=tarfile.LNKTYPE, link=to)


def layer(*entries: Entry) -> bytes:
    """A plain tar archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.mode, info.uid, info.gid = entry.type, entry.mode, entry.uid, entry.gid
            info.size, info.linkname, info.pax_headers = len(entry.data), entry.link, dict(entry.pax)
            info.devmajor, info.devminor = entry.device
            tar.addfile(info, io.BytesIO(entry.data))
    return archive.getvalue()


def digest_of(data: bytes) -> str:
    """As registries write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Registry:
    """One that runs."""

    port: int
    user: str = ""

    @property
    def host(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    def push(
        self,
        name: str,
        layers: Sequence[bytes],
        config: Mapping[str, Any] | None = None,
        *,
        compression: str | Sequence[str] = "+gzip",
        architecture: str = "amd64",
        change: Callable[[dict[str, Any]], None] = lambda manifest: None,
    ) -> str:
        """Push REPOSITORY:TAG; answers the manifest's digest. `change` is done to the manifest before."""
        repository, _, tag = name.partition(":")
        kinds = [compression] * len(layers) if isinstance(compression, str) else compression
        described = [
            self.blob(repository, _COMPRESS[kind](data), f"{_OCI}.layer.v1.tar{kind}")
            for kind, data in zip(kinds, layers, strict=True)
        ]
        content = {
            "architecture": architecture,
            "os": "linux",
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(data) for data in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": self.blob(repository, json.dumps(content).encode(), f"{_OCI}.config.v1+json"),
            "layers": described,
        }
        change(manifest)
        return self.manifest(repository, tag, manifest)

    def push_index(self, name: str, images: Mapping[str, str]) -> str:
        """Push an index of digests by architecture."""
        repository, _, tag = name.partition(":")
        kind = f"{_OCI}.manifest.v1+json"
        entries = []
        for architecture, digest in images.items():
            length = len(self.ask("GET", f"/v2/{repository}/manifests/{digest}", headers={"Accept": kind}))
            platform = {"os": "linux", "architecture": architecture}
            entries.append({"mediaType": kind, "digest": digest, "size": length, "platform": platform})
        index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": entries}
        return self.manifest(repository, tag, index)

    def manifest(self, repository: str, tag: str, content: Mapping[str, Any]) -> str:
        """Put any manifest."""
        data = json.dumps(content).encode()
        headers = {"Content-Type": content["mediaType"]}
        self.ask("PUT", f"/v2/{repository}/manifests/{tag or digest_of(data)}", data, headers)
        return digest_of(data)

    def blob(self, repository: str, data: bytes, kind: str) -> dict[str, Any]:
        """Put a blob; answers its descriptor."""
        place = self._header("POST", f"/v2/{repository}/blobs/uploads/", "Location")
        path = place.partition(self.host)[2] or place
        self.ask("PUT", f"{path}&digest={digest_of(data)}", data, {"Content-Type": "application/octet-stream"})
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    def ask(self, method: str, path: str, data: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
        """A request that must go well; answers the body."""
        return self._ask(method, path, data, headers or {})[1]

    def _header(self, method: str, path: str, name: str) -> str:
        value = self._ask(method, path, b"", {})[0].getheader(name)
        assert value is not None
        return value

    def _ask(
        self, method: str, path: str, data: bytes, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        login = base64.b64encode(f"{self.user}:{PASSWORD}".encode()).decode()
        connection.request(
            method, path, data, {**headers, **({"Authorization": f"Basic {login}"} if self.user else {})}
        )
        response = connection.getresponse()
        body = response.read()
        connection.close()
        assert response.status < 300, (method, path, response.status, body)
        return response, body


@contextmanager
def running_registry(root: Path, *, login: bool = False) -> Iterator[Registry]:
    """docker-registry with its files below `root`, asking for USER and PASSWORD if there is to be a login."""
    root.mkdir()
    port = free_port()
    configuration = _CONFIGURATION.format(storage=root / "storage", port=port)
    if login:
        (root / "htpasswd").write_text(_HTPASSWD)
        configuration += _AUTH.format(path=root / "htpasswd")
    (root / "config.yml").write_text(configuration)
    with open(root / "log", "wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", root / "config.yml"], stdout=log, stderr=log)
    try:
        registry = Registry(port, USER if login else "")
        _wait(registry, process, root / "log")
        yield registry
    finally:
        process.kill()
        process.wait()


def _wait(registry: Registry, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 20
    while True:
        assert process.poll() is None, log.read_text()
        try:
            registry.ask("GET", "/v2/")
            return
        except OSError:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)

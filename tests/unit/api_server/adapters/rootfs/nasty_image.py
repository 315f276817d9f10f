"""An image with everything that layers can have, and how tests have images pulled and sent."""

import tarfile
from collections.abc import Mapping
from pathlib import Path

from ingle.api_server.adapters.rootfs import Registries, RootFileSystems
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.image_config import ImageConfig
from ingle.api_server.model.image_reference import Login
from ingle.api_server.ports.sources import Loaded
from oci_registry import Entry, directory, hard_link, layer, symlink
from unit.api_server.adapters.rootfs.archives import pieces

CAPABILITY = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

BASE = layer(
    directory("bin"),
    Entry("bin/ping", b"#!/bin/sh\n", mode=0o4755, pax={"SCHILY.xattr.security.capability": CAPABILITY}),
    directory("etc"),
    Entry("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
    Entry("etc/shadow", b"secret", mode=0o640, gid=42),
    directory("gone"),
    Entry("gone/with-all", b"x"),
    directory("opaque"),
    Entry("opaque/old", b"x"),
    directory("usr"),
    directory("usr/lib"),
    symlink("lib", "usr/lib"),
    Entry("null", type=tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
    Entry("pipe", type=tarfile.FIFOTYPE, mode=0o600, uid=1000),
    Entry("zeros", bytes(8 << 20)),
)
TOP = layer(
    Entry(".wh.gone"),
    directory("opaque"),
    Entry("opaque/.wh..wh..opq"),
    Entry("opaque/new", b"new"),
    hard_link("etc/passwd-", "etc/passwd"),
    Entry("lib/so", b"through the symlink"),
    Entry("ünïcödé \udcff\nnewline", b"odd"),
    Entry("x" * 255, b"long"),
    directory("home/app", uid=1000, gid=1000, mode=0o700),
)
CONFIG = {
    "Entrypoint": ["/entry", "point"],
    "Cmd": ["serve", "--all"],
    "Env": ["PATH=/bin", "NAME=ünïcödé"],
    "User": "app:app",
    "WorkingDir": "/home/app",
    "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
    "StopSignal": "SIGINT",
    "Labels": {"who": "we"},
    "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 1_500_000_000, "Retries": 3},
}


class Pulls:
    """Pulls into a directory anew each time, with one cache."""

    def __init__(self, tools: Tools, root: Path, mirrors: Mapping[str, list[str]]) -> None:
        self.cache = root / "cache" / "layers"
        self.said: list[str] = []
        self._root = root
        self._tools = tools
        self.source = RootFileSystems(tools, Registries(tools, self.cache, mirrors))
        self._count = 0

    async def __call__(self, reference: str, logins: Mapping[str, Login] | None = None) -> tuple[Path, ImageConfig]:
        into = self._new()
        config = await self.source.fetch(reference, logins or {}, into, lambda text, _: self.said.append(text))
        assert [path.name for path in into.iterdir()] == ["rootfs.ext4"]
        return into / "rootfs.ext4", config

    async def load(self, content: bytes, called: str = "") -> tuple[Path, Loaded]:
        """The same with an archive that somebody sends."""
        into = self._new()
        loaded = await self.source.load(pieces(content), called, into, lambda text, _: self.said.append(text))
        assert [path.name for path in into.iterdir()] == ["rootfs.ext4"]
        return into / "rootfs.ext4", loaded

    def _new(self) -> Path:
        self._count += 1
        into = self._root / str(self._count)
        into.mkdir()
        self.said = []
        return into

    async def seen(self, image: Path, request: str) -> str:
        """What debugfs answers."""
        return (await self._tools.run(["debugfs", "-R", request, image])).decode(errors="surrogateescape")

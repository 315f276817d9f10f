"""BootMedia: initramfs files made of two archives.

The first, the agent and a kernel's modules, is the same for all VMs with that kernel and cached; the second, a few
hundred bytes, is one VM's configuration. Linux unpacks both, one after the other.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.boot import cpio
from ingle.api_server.adapters.guest import identity_messages
from ingle.api_server.host import files
from ingle.api_server.host.threads import in_thread
from ingle.api_server.model.vm import Kernel
from ingle.api_server.ports.disk import BootConfig
from ingle.api_server.ports.sources import Library


class Initramfs:
    """Implements ports.disk.BootMedia with the agent binary at `agent`, keeping shared archives in `cache`."""

    def __init__(self, kernels: Library, agent: Path, cache: Path) -> None:
        self._kernels = kernels
        self._agent = agent
        self._cache = cache
        self._digest: tuple[os.stat_result, str] | None = None

    def agent(self) -> str:
        return self._agent_digest()

    async def write(self, kernel: Kernel, config: BootConfig, path: Path) -> None:
        await in_thread(self._write, kernel, config, path)

    def _write(self, kernel: Kernel, config: BootConfig, path: Path) -> None:
        shared = self._shared_archive(kernel)
        path.unlink(missing_ok=True)
        with files.new_file(path, 0o600) as target, open(target, "wb", closefd=False) as file:
            with open(shared, "rb") as source:
                files.append_file(source.fileno(), target)
            file.write(cpio.archive(_own_entries(kernel, config)))

    def _shared_archive(self, kernel: Kernel) -> Path:
        path = self._cache / f"{kernel.id}-{self._agent_digest()}.cpio"
        if not path.exists():
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            for outdated in self._cache.glob(f"{kernel.id}-*.cpio"):
                outdated.unlink(missing_ok=True)
            modules = self._kernels.path(kernel.id) / "modules"
            files.write_atomically(path, cpio.archive(_shared_entries(self._agent, modules)))
        return path

    def _agent_digest(self) -> str:
        """Of the agent as it is now: it may be replaced by an upgrade while the server runs."""
        now = self._agent.stat()
        if self._digest is None or not _same_file(self._digest[0], now):
            self._digest = now, files.sha256(self._agent)
        return self._digest[1]


def _shared_entries(agent: Path, modules: Path) -> Iterator[cpio.Entry]:
    yield from map(cpio.directory, ("dev", "ingle", "ingle/modules", "newroot", "proc", "sys"))
    # The kernel opens it for init's standard streams before anything could be mounted on /dev.
    yield cpio.character_device("dev/console", 5, 1)
    yield cpio.file("init", agent.read_bytes(), 0o755)
    for module in sorted(modules.iterdir()):
        yield cpio.file(f"ingle/modules/{module.name}", module.read_bytes())


def _own_entries(kernel: Kernel, config: BootConfig) -> Iterator[cpio.Entry]:
    yield cpio.file("ingle/boot.binpb", _message(kernel, config).SerializeToString(deterministic=True), 0o600)


def _message(kernel: Kernel, config: BootConfig) -> agent_pb2.BootConfig:
    return agent_pb2.BootConfig(
        identity=identity_messages.identity(config.identity),
        root_device=config.root_device,
        modules_device=config.modules_device if kernel.disk_modules else "",
        listen=agent_pb2.Listen(serial_port=config.serial_port, vsock_port=config.vsock_port),
        ready_device=config.ready_device,
        power_off=config.power_off,
        image_init=config.image_init,
    )


def _same_file(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_size, one.st_mtime_ns) == (other.st_ino, other.st_size, other.st_mtime_ns)

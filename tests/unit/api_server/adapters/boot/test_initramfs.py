"""Initramfs files: agent, modules and one VM's configuration, in the order Linux needs, for nobody else to read."""

import os
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.boot import Initramfs, cpio
from ingle.api_server.model.guest import GuestIdentity, GuestNetwork
from ingle.api_server.model.vm import Kernel
from ingle.api_server.ports.disk import BootConfig
from ingle.api_server.ports.sources import Sealed

KERNEL = Kernel("k" * 64, ("debian",), "6.1.0", 1, ("virtio", "vsock"), datetime(2026, 1, 1, tzinfo=UTC), "test")
IDENTITY = GuestIdentity(
    token=b"t" * 32,
    hostname="amber-alder",
    machine_id="0123456789abcdef" * 2,
    networks=(
        GuestNetwork("eth0", "10.0.2.15/24", "10.0.2.2", ("10.0.2.3", "1.1.1.1"), "52:54:00:12:34:56"),
        GuestNetwork("eth0", "fd00::2/64", "fd00::1", ()),
    ),
    env={"B": "2", "A": "1"},
    entropy=b"e" * 64,
)
CONFIG = BootConfig(
    IDENTITY, root_device="/dev/vda", serial_port="ingle.agent", ready_device="/dev/ttyS1", image_init=True
)


class KernelShelf:
    """A library as plain as can be: directories that somebody put there."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, item_id: str) -> Path:
        return self._root / item_id

    @asynccontextmanager
    async def workspace(self, op_id: str) -> AsyncIterator[Path]:
        yield self._root / op_id

    def allocated_bytes(self, item_id: str) -> int:
        return 0

    def pieces(self, file: Path) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def seal(self, workspace: Path) -> Sealed:
        return Sealed(workspace.name, 0)

    async def publish(self, workspace: Path, item_id: str) -> None:
        """It is where it belongs."""

    async def remove(self, item_id: str) -> None:
        self.path(item_id).rmdir()

    async def sweep(self, known: object) -> None:
        """Nothing is ever left."""


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    path = tmp_path / "agent"
    path.write_bytes(b"\x7fELF the agent")
    return path


@pytest.fixture
def media(tmp_path: Path, agent: Path) -> Initramfs:
    modules = tmp_path / "kernels" / KERNEL.id / "modules"
    modules.mkdir(parents=True)
    # Made in another order than they are to be loaded.
    (modules / "10-vsock.ko").write_bytes(b"vsock")
    (modules / "02-virtio.ko").write_bytes(b"virtio!")
    return Initramfs(KernelShelf(tmp_path / "kernels"), agent, tmp_path / "cache")


def names(archive: bytes) -> list[str]:
    done = subprocess.run(["cpio", "-it", "--quiet"], input=archive, capture_output=True, check=True)
    return done.stdout.decode().split()


def parts(path: Path) -> tuple[bytes, bytes]:
    """The two archives: the second begins after the first one's trailer and padding."""
    data = path.read_bytes()
    trailer = data.index(b"TRAILER!!!")
    second = data.index(b"070701", trailer)
    return data[:second], data[second:]


async def test_it_holds_the_agent_as_init_and_the_modules_in_load_order(media: Initramfs, tmp_path: Path) -> None:
    await media.write(KERNEL, CONFIG, tmp_path / "initramfs")
    shared, own = parts(tmp_path / "initramfs")
    files = names(shared)
    assert "init" in files
    assert "dev/console" in files
    modules = [name for name in files if name.endswith(".ko")]
    assert modules == ["ingle/modules/02-virtio.ko", "ingle/modules/10-vsock.ko"]
    assert files.index("ingle/modules") < files.index(modules[0])
    assert names(own) == ["ingle/boot.binpb"]


async def test_the_configuration_is_all_there(media: Initramfs, tmp_path: Path) -> None:
    await media.write(KERNEL, CONFIG, tmp_path / "initramfs")
    _, own = parts(tmp_path / "initramfs")
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["cpio", "-id", "--quiet"], input=own, cwd=tmp_path / "unpacked", check=True)  # noqa: ASYNC221
    unpacked = tmp_path / "unpacked" / "ingle" / "boot.binpb"
    assert stat.S_IMODE(unpacked.stat().st_mode) == 0o600
    message = agent_pb2.BootConfig.FromString(unpacked.read_bytes())
    assert message == agent_pb2.BootConfig(
        identity=agent_pb2.GuestIdentity(
            token=b"t" * 32,
            hostname="amber-alder",
            machine_id="0123456789abcdef" * 2,
            networks=[
                agent_pb2.Network(
                    interface="eth0",
                    address="10.0.2.15/24",
                    gateway="10.0.2.2",
                    nameservers=["10.0.2.3", "1.1.1.1"],
                    mac="52:54:00:12:34:56",
                ),
                agent_pb2.Network(interface="eth0", address="fd00::2/64", gateway="fd00::1"),
            ],
            environment=agent_pb2.Environment(variables={"A": "1", "B": "2"}),
            entropy=b"e" * 64,
        ),
        root_device="/dev/vda",
        listen=agent_pb2.Listen(serial_port="ingle.agent"),
        ready_device="/dev/ttyS1",
        image_init=True,
    )


async def test_no_network_is_told_as_none(media: Initramfs, tmp_path: Path) -> None:
    await media.write(KERNEL, BootConfig(GuestIdentity(hostname="probe"), power_off=True), tmp_path / "initramfs")
    _, own = parts(tmp_path / "initramfs")
    identity = agent_pb2.GuestIdentity(hostname="probe")
    message = agent_pb2.BootConfig(identity=identity, listen=agent_pb2.Listen(), power_off=True)
    assert own == cpio.archive([cpio.file("ingle/boot.binpb", message.SerializeToString(), 0o600)])


async def test_nobody_else_can_read_it_whatever_was_there_before(media: Initramfs, tmp_path: Path) -> None:
    path = tmp_path / "initramfs"
    path.write_text("stale")
    path.chmod(0o644)
    os.link(path, tmp_path / "somebody-holds-it")
    await media.write(KERNEL, CONFIG, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / "somebody-holds-it").read_text() == "stale"


async def test_the_same_input_makes_the_same_bytes(media: Initramfs, tmp_path: Path) -> None:
    await media.write(KERNEL, CONFIG, tmp_path / "one")
    await media.write(KERNEL, replace(CONFIG, identity=replace(IDENTITY, env={"A": "1", "B": "2"})), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


async def test_the_shared_part_is_made_once(media: Initramfs, tmp_path: Path) -> None:
    await media.write(KERNEL, CONFIG, tmp_path / "one")
    (cached,) = (tmp_path / "cache").iterdir()
    before = cached.stat()
    await media.write(KERNEL, replace(CONFIG, identity=replace(IDENTITY, hostname="other")), tmp_path / "two")
    assert cached.stat() == before
    assert parts(tmp_path / "one")[0] == parts(tmp_path / "two")[0] == cached.read_bytes()


async def test_a_new_agent_replaces_the_shared_part(media: Initramfs, agent: Path, tmp_path: Path) -> None:
    await media.write(KERNEL, CONFIG, tmp_path / "one")
    agent.write_bytes(b"\x7fELF a newer agent")
    await media.write(KERNEL, CONFIG, tmp_path / "two")
    assert b"a newer agent" in (tmp_path / "two").read_bytes()
    assert len(list((tmp_path / "cache").iterdir())) == 1


async def test_a_cache_that_was_deleted_is_made_again(media: Initramfs, tmp_path: Path) -> None:
    await media.write(KERNEL, CONFIG, tmp_path / "one")
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    (tmp_path / "cache").rmdir()
    await media.write(KERNEL, CONFIG, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()

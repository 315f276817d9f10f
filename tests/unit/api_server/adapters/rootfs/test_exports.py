"""Images as archives, which the tools that they are for are given."""

import json
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import BadFile
from ingle.api_server.model.image_config import ImageConfig
from ingle.api_server.ports.sources import Exported
from oci_registry import Entry, Registry, layer, running_registry
from unit.api_server.adapters.rootfs.nasty_image import BASE, CONFIG, TOP, Pulls

NAME = "docker.io/org/nasty:1"
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
# An access list for user 1000 as programs see it; and attributes of many kinds.
ACL = struct.pack(
    "<I" + 5 * "HHi",
    2,
    *(number for entry in ((1, 6, -1), (2, 4, 1000), (4, 4, -1), (16, 4, -1), (32, 4, -1)) for number in entry),
).decode("utf-8", "surrogateescape")
MORE = layer(
    Entry("etc/acl", b"x", pax={"SCHILY.xattr.system.posix_acl_access": ACL}),
    Entry("etc/labelled", b"x", pax={"SCHILY.xattr.user.long": "v" * 3000, "SCHILY.xattr.user.short": "s"}),
    Entry("block", type=tarfile.BLKTYPE, mode=0o660, gid=6, device=(259, 70000)),
    Entry("far", b"x", uid=100_000, gid=4_000_000_000),
    Entry("large", bytes(range(256)) * 40_000),
    *(Entry(f"many/{'n' * 100}{number}", b"") for number in range(1500)),
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry") / "open") as registry:
        yield registry


@pytest.fixture
async def pulls(tools: Tools, tmp_path: Path) -> Pulls:
    return Pulls(tools, tmp_path, {})


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode()


def layer_of(archive: Path) -> str:
    """The hash of what is in the archive's layer, which is one."""
    with tarfile.open(archive) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = json.load(tar.extractfile(manifest[0]["Config"]))  # type: ignore[arg-type]
    (layer,) = config["rootfs"]["diff_ids"]
    return str(layer)


@pytest.fixture
async def exported(registry: Registry, pulls: Pulls, tmp_path: Path) -> tuple[Path, ImageConfig]:
    registry.push("nasty:1", [BASE, TOP, MORE], CONFIG)
    image, config = await pulls(f"{registry.host}/nasty:1")
    archive = tmp_path / "archive.tar"
    await pulls.source.export(image, Exported(NAME, WHEN, config), archive)
    return archive, config


async def test_what_is_exported_comes_back_as_it_was(
    exported: tuple[Path, ImageConfig], pulls: Pulls, tmp_path: Path
) -> None:
    archive, config = exported
    again, loaded = await pulls.load(archive.read_bytes())
    assert loaded.name == NAME
    assert replace(loaded.config, digest=config.digest) == config
    second = tmp_path / "second.tar"
    await pulls.source.export(again, Exported(NAME, WHEN, config), second)
    assert second.read_bytes() == archive.read_bytes()


async def test_skopeo_and_umoci_take_it_and_find_everything(exported: tuple[Path, ImageConfig], tmp_path: Path) -> None:
    archive, _ = exported
    for transport in ("oci-archive", "docker-archive"):
        said = json.loads(run("skopeo", "inspect", f"{transport}:{archive}"))
        assert said["Architecture"] == "amd64"
        assert said["Env"] == CONFIG["Env"]
    run("skopeo", "copy", f"oci-archive:{archive}:{NAME}", f"oci:{tmp_path}/layout:1")
    root = tmp_path / "root"
    run("fakeroot", "umoci", "raw", "unpack", "--rootless", "--image", f"{tmp_path}/layout:1", root)
    assert (root / "usr/lib/so").read_text() == "through the symlink"
    assert (root / "etc/passwd").samefile(root / "etc/passwd-")
    assert (root / "large").read_bytes() == bytes(range(256)) * 40_000
    assert len(list((root / "many").iterdir())) == 1500
    listed = run("skopeo", "inspect", "--config", f"oci-archive:{archive}")
    assert json.loads(listed)["created"] == "2026-01-02T03:04:05Z"


async def test_owners_modes_attributes_and_devices_are_in_the_layer(
    exported: tuple[Path, ImageConfig], tmp_path: Path
) -> None:
    archive, _ = exported
    with tarfile.open(archive) as tar:
        saved = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        with tarfile.open(fileobj=tar.extractfile(saved[0]["Layers"][0])) as inner:
            members = {member.name.removeprefix("./"): member for member in inner.getmembers()}
    assert (members["bin/ping"].mode, members["etc/shadow"].gid, members["pipe"].uid) == (0o4755, 42, 1000)
    assert "SCHILY.xattr.security.capability" in members["bin/ping"].pax_headers
    assert members["etc/acl"].pax_headers["SCHILY.xattr.system.posix_acl_access"] == ACL
    assert members["etc/labelled"].pax_headers["SCHILY.xattr.user.long"] == "v" * 3000
    assert (members["block"].devmajor, members["block"].devminor, members["block"].isblk()) == (259, 70000, True)
    assert (members["far"].uid, members["far"].gid) == (100_000, 4_000_000_000)
    assert members["etc/passwd-"].linkname == "./etc/passwd"
    assert members["lib"].linkname == "usr/lib"
    assert "lost+found" not in members


async def test_ext2_and_ext3_are_read_as_well(pulls: Pulls, tools: Tools, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "deep/er/large").write_bytes(b"0123456789abcdef" * 1_000_000)
    (tree / "link").symlink_to("x" * 200)
    hashes = set()
    for kind in (
        ["-t", "ext2", "-b", "1024"],
        ["-t", "ext3"],
        ["-t", "ext4", "-O", "inline_data,meta_bg,^resize_inode"],
    ):
        image, archive = tmp_path / "image", tmp_path / "archive"
        await tools.run(["mke2fs", "-q", *kind, "-d", tree, image, "64M"])
        await pulls.source.export(image, Exported("", WHEN, None), archive)
        hashes.add(layer_of(archive))
        archive.unlink()
        image.unlink()
    assert len(hashes) == 1


async def test_what_is_no_file_system_or_a_broken_one_is_refused(pulls: Pulls, tools: Tools, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    with pytest.raises(BadFile, match="no ext4 file system"):
        await pulls.source.export(image, Exported("", WHEN, None), tmp_path / "archive")
    image.unlink()
    await tools.run(["mke2fs", "-q", "-t", "ext4", image, "8M"])
    await tools.run(["debugfs", "-w", "-R", "set_inode_field / block[5] 0x77777777", image])
    with pytest.raises(BadFile, match="can't be used: inode 2: "):
        await pulls.source.export(image, Exported("", WHEN, None), tmp_path / "archive")
    assert not (tmp_path / "archive").exists()

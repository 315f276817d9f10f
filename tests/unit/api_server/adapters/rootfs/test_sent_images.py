"""Images in archives that somebody sends: those of skopeo, and those that were made to do harm."""

import gzip
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from image_archives import ImageArchive
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import BadFile, IngleError, InvalidArgument, NotFound
from oci_registry import Entry, Registry, hard_link, layer, running_registry, symlink
from unit.api_server.adapters.rootfs.nasty_image import BASE, CONFIG, TOP, Pulls
from uploading import archive_of

A = layer(Entry("who", b"a"))
B = layer(Entry("who", b"b"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry") / "open") as registry:
        yield registry


@pytest.fixture
def pulls(tools: Tools, tmp_path: Path) -> Pulls:
    return Pulls(tools, tmp_path, {})


def skopeo(*arguments: str | Path) -> None:
    subprocess.run(["skopeo", *arguments], check=True, capture_output=True)


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive"])
async def test_what_skopeo_writes_is_what_the_registry_has(
    registry: Registry, pulls: Pulls, tmp_path: Path, transport: str
) -> None:
    registry.push("nasty:1", [BASE, TOP], CONFIG, compression=["+gzip", "+zstd"] if "oci" in transport else "+gzip")
    expected, config = await pulls(f"{registry.host}/nasty:1")
    there = tmp_path / "sent"
    skopeo("copy", "--src-tls-verify=false", f"docker://{registry.host}/nasty:1", f"{transport}:{there}:org/nasty:1")
    made, loaded = await pulls.load(archive_of({".": there}) if there.is_dir() else there.read_bytes())
    assert loaded.name.removeprefix("docker.io/") == "org/nasty:1"
    assert replace(loaded.config, digest="") == replace(config, digest="")
    for request in ("ls -l /", "stat /bin/ping", "stat /etc/passwd-", "stat /home/app", "cat /usr/lib/so"):
        assert without_times(await pulls.seen(made, request)) == without_times(await pulls.seen(expected, request))
    assert made.read_bytes()[1024 + 0x68 :][:16] == expected.read_bytes()[1024 + 0x68 :][:16] or "docker" in transport


def without_times(seen: str) -> list[str]:
    return [line for line in seen.split("\n") if "time:" not in line and "checksum" not in line]


async def test_of_many_architectures_the_hosts_is_taken_and_layers_are_kept(pulls: Pulls) -> None:
    archive = ImageArchive()
    many = archive.many({"arm64": archive.image([B], architecture="arm64"), "amd64": archive.image([A])})
    archive.index({"docker.io/library/x:1": many})
    for compressed in (False, True):
        content = gzip.compress(archive.content()) if compressed else archive.content()
        made, loaded = await pulls.load(content)
        assert await pulls.seen(made, "cat /who") == "a"
        assert loaded.name == "docker.io/library/x:1"
    assert [line for line in pulls.said if "layer 1 of 1 is cached" in line]
    archive = ImageArchive()
    archive.index({"": archive.many({"arm64": archive.image([B], architecture="arm64")})})
    with pytest.raises(NotFound, match="nothing for linux/amd64; there is: linux/arm64"):
        await pulls.load(archive.content())


@pytest.mark.parametrize("kind", ["oci", "docker"])
async def test_of_several_images_one_is_said(pulls: Pulls, kind: str) -> None:
    archive = ImageArchive()
    if kind == "oci":
        archive.index({"docker.io/library/a:1": archive.image([A]), "b:latest": archive.image([A, B])})
    else:
        archive.docker({"a:1": [A], "b:latest": [A, B]})
    with pytest.raises(InvalidArgument, match=r"it has 2 images, say which; it has .*a:1, b:latest"):
        await pulls.load(archive.content())
    with pytest.raises(NotFound, match='no image "c" is in it'):
        await pulls.load(archive.content(), "c")
    for called, who in (("a:1", "a"), ("b", "b")):
        made, _ = await pulls.load(archive.content(), called)
        assert await pulls.seen(made, "cat /who") == who


def lost(archive: ImageArchive, part: str) -> None:
    for name in [name for name in archive.files if part in name]:
        del archive.files[name]


def damaged(archive: ImageArchive) -> None:
    for name, data in archive.files.items():
        if name.startswith("blobs") and data[:2] == b"\x1f\x8b":
            archive.files[name] = data[:-8] + bytes(8)


def swapped(archive: ImageArchive) -> None:
    """A blob that unpacks to what it should, and is not what its digest says."""
    for name, data in archive.files.items():
        if name.startswith("blobs") and data[:2] == b"\x1f\x8b":
            archive.files[name] = gzip.compress(gzip.decompress(data), 9, mtime=1)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda archive: lost(archive, "blobs"), "it lacks"),
        (lambda archive: lost(archive, "index.json"), "neither index.json"),
        (damaged, "something else in the place of"),
        (swapped, "something else in the place of"),
        (lambda archive: archive.files.update({"index.json": b"{"}), "can't be read"),
        (lambda archive: archive.files.update({"index.json": b" " * (5 << 20)}), "bytes; 4194304 are allowed"),
        (lambda archive: archive.files.update({"index.json": b'{"manifests":[]}'}), "no image that can be read"),
    ],
)
async def test_what_is_broken_is_told_and_leaves_no_layer(
    pulls: Pulls, spoil: Callable[[ImageArchive], None], said: str
) -> None:
    archive = ImageArchive()
    archive.index({"x:1": archive.image([A])})
    spoil(archive)
    with pytest.raises(BadFile, match=said):
        await pulls.load(archive.content())
    assert not any((pulls.cache / "layers").glob("*")) or not pulls.cache.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no archive" * 200, "no tar archive"),
        (layer(Entry("etc/passwd", b"x")), "neither index.json"),
        (layer(symlink("index.json", "/etc/passwd"), symlink("manifest.json", "manifest.json")), "neither"),
        (layer(Entry("index.json", b"{}"), hard_link("blobs", "../../etc")), "no image that can be read"),
        (ImageArchive().docker({"x:1": [layer(Entry("../up", b"x"))]}).content(), "'..' is not allowed"),
        (
            layer(Entry("manifest.json", json.dumps([{"Config": "../../etc/shadow", "Layers": ["x"]}]).encode())),
            "lacks",
        ),
        (ImageArchive().docker({"x:1": [A]}).content()[:1700], "broken|truncated"),
    ],
)
async def test_what_was_made_to_do_harm_is_refused(pulls: Pulls, content: bytes, said: str) -> None:
    with pytest.raises(BadFile, match=said):
        await pulls.load(content)


async def test_an_image_that_unpacks_to_other_layers_than_it_says_is_refused(pulls: Pulls) -> None:
    archive = ImageArchive().docker({"x:1": [A]})
    archive.files["0-0/layer.tar"] = B
    with pytest.raises(IngleError, match="the image's configuration says"):
        await pulls.load(archive.content())

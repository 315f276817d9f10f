"""Images in files and directories of whoever calls: read with the caller's rights, named as the archive names them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import Server, refused
from image_archives import ImageArchive
from ingle.v1 import image_pb2, system_pb2
from oci_registry import Entry, layer
from uploading import sent_image

TREE = layer(Entry("etc/hostname", b"of an archive"))


def ingle(server: Server, *arguments: str, stdin: bytes = b"", code: int = 0) -> str:
    """What it said, on both streams."""
    ended = subprocess.run(
        [sys.executable, "-m", "ingle.cli", *arguments],
        env={"HOME": "/nowhere", "PATH": os.environ["PATH"], "INGLE_SOCKET": str(server.socket), "LC_ALL": "C.UTF-8"},
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    said = ended.stdout.decode()
    assert ended.returncode == code, said
    return said


def names(server: Server) -> set[str]:
    return {name for image in server.images.ListImages(image_pb2.ListImagesRequest()).images for name in image.names}


def got(server: Server, name: str) -> image_pb2.Image:
    return server.images.GetImage(image_pb2.GetImageRequest(image=name)).image


def unpacked(archive: ImageArchive, into: Path) -> Path:
    for name, data in archive.files.items():
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_bytes(data)
    return into


def test_a_layout_an_archive_and_what_docker_saves_are_one_image(server: Server, tmp_path: Path) -> None:
    config = {"Entrypoint": ["/app"], "User": "app"}
    archive = ImageArchive()
    archive.index({"docker.io/org/laid-out:1": archive.image([TREE], config)})
    directory = unpacked(archive, tmp_path / "lay:out")
    (directory / "blobs/sha256/of-somebody-else").write_bytes(b"x")
    file = tmp_path / "archive.tar"
    file.write_bytes(archive.content())
    saved = ImageArchive().docker({"saved:1": [TREE]}, config).content()
    ingle(server, "image", "pull", f"oci:{directory}")
    made = got(server, "org/laid-out:1")
    assert made.config.entrypoint == ["/app"]
    assert made.config.user == "app"
    assert made.source == f"archive {directory}"
    ingle(server, "image", "pull", f"oci-archive:{file}:org/laid-out:1", "--name", "by-file:1")
    assert got(server, "by-file:1").config == made.config
    ingle(server, "image", "pull", "-", stdin=saved)
    assert got(server, "saved:1").config.entrypoint == ["/app"]
    ingle(server, "image", "load", "--name", "loaded:1", stdin=saved)
    (tmp_path / "saved.tar").write_bytes(saved)
    ingle(server, "image", "load", "-i", str(tmp_path / "saved.tar"), "-n", "loaded:1")
    for name in ("org/laid-out:1", "by-file:1", "saved:1", "loaded:1"):
        if name in names(server):
            ingle(server, "image", "delete", name)


def test_what_the_archive_does_not_say_is_asked(server: Server, tmp_path: Path) -> None:
    archive = ImageArchive()
    nameless = archive.index({"latest": archive.image([TREE])}).content()
    before = names(server)
    assert "ingle image pull --name NAME" in ingle(server, "image", "pull", "-", stdin=nameless, code=1)
    two = ImageArchive().docker({"a:1": [TREE], "b:1": [TREE, TREE]}).content()
    said = ingle(server, "image", "load", stdin=two, code=1)
    assert "it has a:1, b:1" in said
    assert "ingle image pull oci-archive:FILE:NAME" in said
    assert "no directory" in ingle(server, "image", "pull", f"oci:{tmp_path}/nothing", code=1)
    assert "No such file" in ingle(server, "image", "pull", f"docker-archive:{tmp_path}/nothing", code=1)
    assert "--name: an image of a registry" in ingle(server, "image", "pull", "x", "--name", "y", code=1)
    assert names(server) == before


def test_an_archive_takes_no_name_of_the_catalogs_for_its_image(server: Server) -> None:
    """What others get who ask for that is ingle's own."""
    saved = ImageArchive().docker({"debian:bookworm": [TREE]}).content()
    ingle(server, "image", "load", stdin=saved)
    assert "docker.io/library/debian:bookworm" in names(server)
    assert "debian:bookworm" not in names(server)
    ingle(server, "image", "delete", "docker.io/library/debian:bookworm")


def test_an_archives_image_is_never_taken_for_a_registrys(server: Server) -> None:
    start = image_pb2.RegisterImageStart(archive=True, source="127.0.0.1:1/org/app:v1")
    content = ImageArchive().docker({"127.0.0.1:1/org/app:v1": [TREE]}).content()
    server.images.RegisterImage(sent_image(start, content))
    answer = refused(server.images.PullImage, image_pb2.PullImageRequest(name="127.0.0.1:1/org/app:v1"))
    assert answer.reason == "REGISTRY_UNREACHABLE"
    ingle(server, "image", "delete", "127.0.0.1:1/org/app:v1")


@pytest.mark.parametrize(
    "start",
    [
        image_pb2.RegisterImageStart(archive=True, archived_as="x" * 300),
        image_pb2.RegisterImageStart(archive=True, name="No Such"),
        image_pb2.RegisterImageStart(archive=True, source="x\ny"),
    ],
)
def test_what_could_not_be_kept_is_refused_before_it_is_sent(
    server: Server, start: image_pb2.RegisterImageStart
) -> None:
    content = sent_image(start, b"")
    assert refused(server.images.RegisterImage, content).reason == "INVALID_ARGUMENT"


def test_layers_are_told_of_and_deleted(server: Server) -> None:
    ingle(server, "image", "cache", "prune")
    ingle(server, "image", "load", stdin=ImageArchive().docker({"layers:1": [TREE]}).content())
    (use,) = (
        use
        for use in server.system.GetDiskUsage(system_pb2.GetDiskUsageRequest()).uses
        if use.kind == system_pb2.DISK_USE_KIND_IMAGE_LAYERS
    )
    assert use.allocated_bytes == use.reclaimable_bytes >= len(TREE) // 2
    assert use.command == "ingle image cache prune"
    assert "image-layers" in ingle(server, "df").replace(" ", "-")
    dry = server.images.PruneImageLayers(image_pb2.PruneImageLayersRequest(dry_run=True))
    assert dry.blobs == 1
    assert "would free" in ingle(server, "image", "cache", "prune", "--dry-run")
    assert server.images.PruneImageLayers(image_pb2.PruneImageLayersRequest()) == dry
    assert "freed 0" in ingle(server, "image", "cache", "prune")
    ingle(server, "image", "delete", "layers:1")

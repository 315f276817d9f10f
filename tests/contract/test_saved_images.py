"""Images of VMs' disks, and images that leave the server, with VMs whose machine is a stand-in."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.test_engines import delete
from contract.test_image_archives import got, ingle, names
from contract.test_snapshots import disk
from harness import Server, nothing_left, refused
from image_archives import ImageArchive
from ingle.v1 import image_pb2, vm_pb2
from oci_registry import Entry, layer
from uploading import sent_image

CONFIG = {"Entrypoint": ["/app"], "Env": ["A=b"], "Labels": {"of": "app"}}
CONTENT = ImageArchive().docker(
    {"app:1": [layer(Entry("etc/hostname", b"app"), Entry("large", b"x" * 300_000))]}, CONFIG
)


@pytest.fixture
def server(red_server: Server) -> Iterator[Server]:
    if "app:1" not in names(red_server):
        red_server.images.RegisterImage(sent_image(image_pb2.RegisterImageStart(archive=True), CONTENT.content()))
    before = names(red_server)
    yield red_server
    for vm in red_server.list():
        delete(red_server, vm.id)
    for name in names(red_server) - before:
        red_server.images.DeleteImage(image_pb2.DeleteImageRequest(image=name))
    nothing_left(red_server)
    assert not red_server.snapshot_list()
    assert not list((red_server.state / "snapshots").iterdir())


def created(server: Server, *, start: bool) -> vm_pb2.Vm:
    spec = vm_pb2.VmSpec(name="web", engine="red", image="app:1", kernel="made-up")
    return server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec, no_start=not start)).vm


def change(path: Path, tmp_path: Path) -> None:
    """As its guest would: a file more, and one less."""
    (tmp_path / "new").write_bytes(b"of the guest")
    commands = f"write {tmp_path}/new new\nrm /large\n"
    subprocess.run(["debugfs", "-w", "-f", "-", path], input=commands.encode(), check=True, capture_output=True)


def seen(image: Path, request: str) -> str:
    return subprocess.run(["debugfs", "-R", request, image], check=True, capture_output=True).stdout.decode()


@pytest.mark.parametrize("running", [False, True])
def test_a_saved_disk_is_an_image_that_is_run_as_the_first_one(server: Server, tmp_path: Path, running: bool) -> None:
    web = created(server, start=running)
    change(disk(server, web.id), tmp_path)
    assert "web:configured" in ingle(server, "image", "save", "web", "web:configured")
    image = got(server, "web:configured")
    assert image.config == got(server, "app:1").config
    assert image.source == "VM web"
    file = server.state / "images" / image.id / "rootfs.ext4"
    assert seen(file, "cat /new") == "of the guest"
    assert seen(file, "cat /etc/hostname") == "app"
    assert file.stat().st_size == image.size_bytes < 128 << 20, "a disk is far larger than what is on it"
    deleted = b"x" * 1000 in file.read_bytes()
    assert not deleted, "what was deleted is in the image"
    state = server.vms.GetVm(vm_pb2.GetVmRequest(vm="web")).vm.state
    assert state == (vm_pb2.VM_STATE_RUNNING if running else vm_pb2.VM_STATE_STOPPED)


def test_a_disk_that_the_guest_has_overwritten_is_refused_and_leaves_nothing(server: Server) -> None:
    web = created(server, start=False)
    with disk(server, web.id).open("r+b") as file:
        file.write(bytes(4096))
    request = image_pb2.SaveImageRequest(vm="web", name="broken:1")
    assert refused(server.images.SaveImage, request).reason == "IMAGE_INVALID"
    assert "broken:1" not in names(server)


@pytest.mark.parametrize(
    ("vm", "name", "reason"), [("web", "No Such", "INVALID_ARGUMENT"), ("none", "x", "VM_NOT_FOUND")]
)
def test_what_cannot_be_saved_is_refused_first(server: Server, vm: str, name: str, reason: str) -> None:
    created(server, start=False)
    assert refused(server.images.SaveImage, image_pb2.SaveImageRequest(vm=vm, name=name)).reason == reason


def test_an_image_is_written_to_a_file_and_comes_back(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "app.tar"
    ingle(server, "image", "export", "app:1", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    said = json.loads(
        subprocess.run(["skopeo", "inspect", "--config", f"oci-archive:{file}"], check=True, capture_output=True).stdout
    )
    assert said["config"]["Entrypoint"] == ["/app"]
    ingle(server, "image", "pull", f"oci-archive:{file}", "--name", "again:1")
    again, first = got(server, "again:1").config, got(server, "app:1").config
    again.digest = first.digest
    assert again == first
    assert "no image" in ingle(server, "image", "export", "none", str(tmp_path / "none"), code=1)
    assert not (tmp_path / "none").exists()

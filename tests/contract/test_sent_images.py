"""Images and kernels are sent by who has them: the server opens nothing that a caller names, and keeps nothing of what
did not come whole."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor

from harness import Server, nothing_left, refused
from ingle.testing import made_up
from ingle.v1 import guest_pb2, image_pb2, kernel_pb2, operation_pb2, system_pb2, vm_pb2
from ingle.v1.upload_pb2 import UploadEnd, UploadHole
from uploading import archive_of, image_upload, kernel_upload

MODULES = ("virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "ext4")


def ingle(server: Server, *arguments: str, stdin: bytes = b"", code: int = 0) -> str:
    """What it said, on both streams."""
    ended = subprocess.run(
        [sys.executable, "-m", "ingle.cli", *arguments],
        env={**os.environ, "INGLE_SOCKET": str(server.socket)},
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    said = ended.stdout.decode()
    assert ended.returncode == code, said
    return said


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    (path / "etc").mkdir(parents=True)
    (path / "etc" / "hostname").write_text("made-up")
    with open(path / "sparse", "wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
        file.seek(1 << 20)
        file.write(b"middle")
    return path


def _requests(message: Descriptor, seen: set[str]) -> Iterator[str]:
    """Names of all fields below a message."""
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    for field in message.fields:
        yield f"{message.name}.{field.name}"
        if field.message_type is not None:
            yield from _requests(field.message_type, seen)


def test_no_request_carries_a_path_of_the_host() -> None:
    """A guest's paths are the guest's; all others would be opened with the server's rights."""
    files = (vm_pb2, image_pb2, kernel_pb2, operation_pb2, system_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    fields = {name for each in services for method in each.methods for name in _requests(method.input_type, set())}
    assert "VmSpec.image" in fields
    named = {name for name in fields if "path" in name or "file" in name or "directory" in name}
    assert named == {"FieldMask.paths"}
    assert guest_pb2.WriteFileStart.DESCRIPTOR.fields_by_name["path"]


def test_a_directory_an_archive_on_stdin_and_an_ext4_file_become_images(
    server: Server, tree: Path, tmp_path: Path
) -> None:
    ingle(server, "image", "register", "-n", "from-tree", "--rootfs", str(tree))
    (tree / "etc" / "issue").write_text("of another image: equal ones, made within the same second, are one")
    ingle(server, "image", "register", "-n", "from-stdin", "--rootfs", "-", stdin=archive_of({".": tree}))
    images = {
        name: image for image in server.images.ListImages(image_pb2.ListImagesRequest()).images for name in image.names
    }
    made = server.state / "images" / images["from-tree"].id / "rootfs.ext4"
    dumped = subprocess.run(["debugfs", "-R", "cat /sparse", made], capture_output=True, check=True).stdout
    assert dumped == (tree / "sparse").read_bytes()
    assert images["from-tree"].allocated_bytes < 32 << 20
    assert images["from-stdin"].source == "stdin"
    ext4 = tmp_path / "rootfs.ext4"
    subprocess.run(["cp", "--sparse=always", made, ext4], check=True)
    os.truncate(ext4, 512 << 20)  # sent as it is, it would take a while
    ingle(server, "image", "register", "-n", "from-ext4", "--rootfs", str(ext4))
    image = server.images.GetImage(image_pb2.GetImageRequest(image="from-ext4")).image
    assert (image.size_bytes, image.source) == (512 << 20, str(ext4))
    assert image.allocated_bytes < 64 << 20
    for name in ("from-tree", "from-stdin", "from-ext4"):
        ingle(server, "image", "delete", name)
    nothing_left(server)


def test_a_kernel_and_its_modules_are_read_by_who_calls_and_nothing_of_them_blocks(
    server: Server, tmp_path: Path
) -> None:
    kernel, modules = tmp_path / "vmlinux", tmp_path / "modules"
    kernel.write_bytes(made_up.VMLINUX)
    modules.mkdir()
    for name in MODULES:
        (modules / f"{name}.ko").write_bytes(f"\0vermagic={made_up.RELEASE} SMP\0".encode())
    (modules / "modules.dep").write_text("".join(f"{name}.ko:\n" for name in MODULES))
    ingle(server, "kernel", "import", "-n", "mine", "--modules", str(modules), str(kernel))
    assert server.kernels.GetKernel(kernel_pb2.GetKernelRequest(kernel="mine")).kernel.modules == len(MODULES)
    assert "none: to have all modules in new VMs, import it" in ingle(server, "kernel", "show", "mine")
    (modules / "modules.builtin").write_text("kernel/fs/squashfs/squashfs.ko\n")
    ingle(server, "kernel", "import", "-n", "mine", "--modules", str(modules), str(kernel))
    told = f"{len(MODULES)} modules, at /lib/modules/{made_up.RELEASE} of every guest"
    assert told in ingle(server, "kernel", "show", "mine")
    (modules / "modules.dep").unlink()
    os.mkfifo(modules / "modules.dep")
    ingle(server, "kernel", "import", "-n", "mine", "--modules", str(modules), str(kernel))
    ingle(server, "kernel", "import", "-n", "bare", str(kernel))
    assert "none: it came without modules" in ingle(server, "kernel", "show", "bare")
    assert "No such file" in ingle(server, "kernel", "import", "-n", "none", str(tmp_path / "none"), code=1)
    ingle(server, "kernel", "delete", "mine", "bare")
    ingle(server, "kernel", "prune", "--force")
    nothing_left(server)


def test_an_operation_has_the_image_that_came_of_it_until_that_is_deleted(server: Server, tree: Path) -> None:
    image, call = server.images.RegisterImage.with_call(image_upload("result", tree))
    op_id = dict(call.initial_metadata())["ingle-op-id"]
    request = operation_pb2.GetOperationRequest(operation_id=str(op_id))
    assert server.operations.GetOperation(request).operation.image == image.image
    (watched,) = server.operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id=str(op_id)))
    assert watched.operation.image == image.image
    server.images.DeleteImage(image_pb2.DeleteImageRequest(image="result"))
    assert server.operations.GetOperation(request).operation.WhichOneof("result") is None


def test_a_vm_is_told_with_names_however_its_image_and_kernel_were_given(server: Server, tree: Path) -> None:
    image = server.images.RegisterImage(image_upload("base", tree)).image
    kernel = server.kernels.ImportKernel(
        kernel_upload("cafe", made_up.VMLINUX)
    ).kernel  # a name that an id may begin with
    spec = vm_pb2.VmSpec(image=image.id, kernel=kernel.id)
    vms = [server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec, no_start=True)).vm]
    name = ingle(server, "vm", "create", "--no-start", "--image", image.id[:9], "--kernel", "cafe").split()[-1]
    vms.append(server.vms.GetVm(vm_pb2.GetVmRequest(vm=name)).vm)
    assert [(vm.image_name, vm.image_id, vm.kernel_name) for vm in vms] == [("base", image.id, "cafe")] * 2
    for vm in vms:
        ingle(server, "vm", "delete", vm.id[:8])
    ingle(server, "image", "delete", image.id[:9])
    ingle(server, "kernel", "delete", "cafe")
    nothing_left(server)


def until_nothing_left(server: Server) -> None:
    """What a caller has left goes soon, not at once."""
    deadline = time.monotonic() + 30
    while True:
        try:
            nothing_left(server)
        except AssertionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def _slow(requests: "Iterator[Any]", count: int) -> "Iterator[Any]":
    """The first so many of them, and then nothing until the call is over."""
    for _ in range(count):
        yield next(requests)
    time.sleep(60)


def _begun(server: Server) -> str:
    """The operation of the upload that is under way, once it is."""
    kinds = {operation_pb2.OPERATION_KIND_REGISTER_IMAGE, operation_pb2.OPERATION_KIND_IMPORT_KERNEL}
    while True:
        for last in server.operations.ListOperations(operation_pb2.ListOperationsRequest(page_size=1)).operations:
            if last.kind in kinds and last.state == operation_pb2.OPERATION_STATE_RUNNING:
                return last.id


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("noun", ["image", "kernel"])
def test_a_caller_who_leaves_leaves_nothing(server: Server, tree: Path, noun: str, count: int) -> None:
    method: Any = server.images.RegisterImage if noun == "image" else server.kernels.ImportKernel
    requests: Any = image_upload("left", archive_of({".": tree})) if noun == "image" else kernel_upload("left", b"x")
    call = method.future(iter(_slow(requests, count)))
    _begun(server)
    call.cancel()
    until_nothing_left(server)


def test_an_upload_is_cancelled_like_any_operation(server: Server) -> None:
    call = server.images.RegisterImage.future(_slow(image_upload("left", b"x"), 2))
    server.operations.CancelOperation(operation_pb2.CancelOperationRequest(operation_id=_begun(server)))
    assert refused(call.result).reason == "OPERATION_CANCELLED"
    nothing_left(server)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_ended_while_it_sends_leaves_nothing(server: Server, number: signal.Signals) -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", "ingle.cli", "image", "register", "-n", "left", "--rootfs", "-"],
        env={**os.environ, "INGLE_SOCKET": str(server.socket)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdin is not None
    command.stdin.write(archive_of({}) * 100)
    command.stdin.flush()
    while not list((server.state / "images").glob(".work/*/.scratch/sent")):
        assert command.poll() is None
        time.sleep(0.01)
    command.send_signal(number)
    command.stdin.close()
    assert command.stderr is not None
    said = command.stderr.read().decode()
    command.stderr.close()
    assert command.wait(30) in ((130, -signal.SIGINT) if number == signal.SIGINT else (-signal.SIGKILL,))
    assert "fault" not in said
    until_nothing_left(server)


@pytest.mark.parametrize("noun", ["image", "kernel"])
def test_silence_is_no_end(server: Server, tree: Path, noun: str) -> None:
    """All the data, and then the stream stops."""
    method: Any = server.images.RegisterImage if noun == "image" else server.kernels.ImportKernel
    sent: Any = image_upload("left", tree) if noun == "image" else kernel_upload("left", made_up.VMLINUX)
    *all_but_the_end, _ = sent
    error = refused(method, iter(all_but_the_end))
    assert error.reason == "INVALID_ARGUMENT"
    assert "without `end`" in error.message
    nothing_left(server)


def test_more_than_any_file_has_is_refused(server: Server) -> None:
    def requests() -> Iterator[image_pb2.RegisterImageRequest]:
        yield image_pb2.RegisterImageRequest(start=image_pb2.RegisterImageStart(name="large"))
        for _ in range(3):
            yield image_pb2.RegisterImageRequest(hole=UploadHole(bytes=2**64 - 1))
        yield image_pb2.RegisterImageRequest(end=UploadEnd())

    error = refused(server.images.RegisterImage, requests())
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    nothing_left(server)


def test_the_catalog_of_images_is_told(server: Server) -> None:
    assert "debian:bookworm-systemd" in ingle(server, "image", "catalog")
    images = server.images.ListCatalogImages(image_pb2.ListCatalogImagesRequest()).images
    assert {image.present for image in images} == {False}

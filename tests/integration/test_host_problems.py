"""What the host may lack: told clearly, before anything changes, and nothing is left."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import NewServer, Server, cloned_directory, nothing_left, refused, running_server
from ingle.v1 import image_pb2, kernel_pb2, system_pb2, vm_pb2
from uploading import image_upload, kernel_upload


def test_a_missing_qemu_is_told_with_what_to_install(prepared: Path, tmp_path: Path) -> None:
    """A PATH that has everything but QEMU."""
    for directory in os.environ["PATH"].split(os.pathsep):
        for program in Path(directory).glob("*"):
            link = tmp_path / program.name
            if not program.name.startswith("qemu-system") and not link.exists():
                link.symlink_to(program)
    with cloned_directory(prepared) as root, running_server(root, {"PATH": str(tmp_path)}) as server:
        error = refused(server.vms.CreateVm, vm_pb2.CreateVmRequest())
        assert error.reason == "DEPENDENCY_MISSING"
        assert "qemu-system-x86_64" in error.message
        assert "apt install qemu-system-x86" in error.remedy
        problems = {each.name: each.problem for each in server.system.GetInfo(system_pb2.GetInfoRequest()).engines}
        assert "apt install" in problems["qemu"]
        nothing_left(server)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_told_and_nothing_is_left(prepared: Path) -> None:
    with cloned_directory(prepared) as root:
        vms = root / "state" / "ingle" / "vms"
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", vms], check=True)
        try:
            with running_server(root) as server:
                spec = vm_pb2.VmSpec(disk_backend="copy")
                assert refused(server.vms.CreateVm, vm_pb2.CreateVmRequest(spec=spec)).reason == "DISK_FULL"
                nothing_left(server)
        finally:
            subprocess.run(["umount", vms], check=True)


def test_a_socket_path_that_is_too_long_is_told_at_the_start(tmp_path: Path) -> None:
    runtime = tmp_path / ("long" * 30)
    runtime.mkdir(mode=0o700)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "XDG_STATE_HOME": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-m", "ingle.api_server", "serve"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "107" in done.stderr
    assert "XDG_RUNTIME_DIR" in done.stderr


def test_a_kernel_that_does_not_boot_is_told_with_its_console(new_server: NewServer) -> None:
    """Killed while it boots, so that no test waits for the deadline: the point is what the error says."""
    server = new_server()
    spec = vm_pb2.VmSpec(boot_mode=vm_pb2.BOOT_MODE_COLD)
    call = server.vms.CreateVm.future(vm_pb2.CreateVmRequest(spec=spec))
    while not (vmms := [pid for pid, line in server.vmm_processes().items() if "-name ingle-" in line]):
        assert not call.done()
    os.kill(vmms[0], 9)
    error = refused(call.result)
    assert error.reason == "VMM_FAILED"
    assert "signal 9" in error.message
    nothing_left(server)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_a_damaged_kernel_is_refused(server: Server, prepared: Path, tmp_path: Path, damage: str) -> None:
    good = next((prepared / "state" / "ingle" / "kernels").glob("*/vmlinux")).read_bytes()
    content = {"empty": b"", "text": b"not a kernel\n" * 1000, "truncated": good[: len(good) // 2]}[damage]
    path = tmp_path / "vmlinux"
    path.write_bytes(content)
    before = len(server.kernels.ListKernels(kernel_pb2.ListKernelsRequest()).kernels)
    assert refused(server.kernels.ImportKernel, kernel_upload("bad", path)).reason == "KERNEL_INVALID"
    assert len(server.kernels.ListKernels(kernel_pb2.ListKernelsRequest()).kernels) == before


@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_a_damaged_image_is_refused(server: Server, prepared: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "rootfs"
    if damage == "truncated":
        shutil.copy(next((prepared / "state" / "ingle" / "images").glob("*/rootfs.ext4")), path)
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.write_bytes({"empty": b"", "text": b"not an image\n" * 1000}[damage])
    before = len(server.images.ListImages(image_pb2.ListImagesRequest()).images)
    assert refused(server.images.RegisterImage, image_upload("bad", path)).reason == "IMAGE_INVALID"
    assert len(server.images.ListImages(image_pb2.ListImagesRequest()).images) == before
    strays = [item for item in (server.state / "images").iterdir() if len(item.name) != 64 and any(item.iterdir())]
    assert strays == []


def test_a_modular_kernel_imported_without_its_modules_is_told_what_to_import(server: Server, prepared: Path) -> None:
    """What was unpacked once can be imported as a file."""
    kernel = next((prepared / "state" / "ingle" / "kernels").glob("*/vmlinux"))
    answer = server.kernels.ImportKernel(kernel_upload("bare", kernel)).kernel
    assert answer.names == ["bare"]
    assert answer.modules == 0
    error = refused(server.vms.CreateVm, vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(kernel="bare")))
    assert error.reason == "VMM_FAILED"
    assert error.message.startswith("the guest has shut itself down; its console ends with:")
    assert error.remedy == f"ingle kernel import --name bare --modules /lib/modules/{answer.release} {kernel}"
    server.kernels.DeleteKernel(kernel_pb2.DeleteKernelRequest(kernel="bare"))


def test_a_busybox_root_file_system_boots(server: Server, tmp_path: Path) -> None:
    """No glibc, no Python, no init: what the agent needs of an image is nothing at all."""
    root = tmp_path / "busybox"
    (root / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for applet in ("sh", "cat", "echo", "uname"):
        (root / "bin" / applet).symlink_to("busybox")
    server.images.RegisterImage(image_upload("busybox", root))
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(image="busybox"))).vm
    assert server.run(vm.id, "sh", "-c", "echo from $(uname)") == (0, b"from Linux\n", b"")
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
    server.images.DeleteImage(image_pb2.DeleteImageRequest(image="busybox"))

"""What is on the disk of a VM that is stopped, whatever keeps it."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness import Client
from ingle.v1 import vm_pb2

_SECTOR, _CHUNK_SECTORS = 512, 8


@contextmanager
def disk_of(server: Client, vm: vm_pb2.Vm, scratch: Path) -> Iterator[Path]:
    """As one file or device. `scratch`: a directory."""
    (disk,) = (server.state / "vms" / vm.id).glob("disk.*")
    if disk.suffix == ".cow":
        image = server.state / "images" / vm.image_id / "rootfs.ext4"
        with _device(image, disk, vm.disk_bytes) as device:
            yield device
        return
    raw = scratch / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, raw], check=True)
    try:
        yield raw
    finally:
        raw.unlink()


@contextmanager
def _device(image: Path, changes: Path, size_bytes: int) -> Iterator[Path]:
    """A device-mapper snapshot, as the kernel's Documentation/admin-guide/device-mapper/snapshot.rst has it. What lies
    behind the image is zeros."""
    name = "contract-check"
    sectors, of_image = size_bytes // _SECTOR, image.stat().st_size // _SECTOR
    with ExitStack() as stack:

        def loop(file: Path, *options: str) -> str:
            device = _said("losetup", "--find", "--show", *options, str(file))
            stack.callback(_said, "losetup", "--detach", device)
            return device

        def mapped(name: str, table: str) -> str:
            _said("dmsetup", "create", name, "--readonly", "--table", table)
            stack.callback(_said, "dmsetup", "remove", "--retry", name)
            return f"/dev/mapper/{name}"

        rest = f"\n{of_image} {sectors - of_image} zero" if sectors > of_image else ""
        origin = mapped(f"{name}-origin", f"0 {of_image} linear {loop(image, '--read-only')} 0{rest}")
        yield Path(mapped(name, f"0 {sectors} snapshot {origin} {loop(changes)} P {_CHUNK_SECTORS}"))


def _said(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

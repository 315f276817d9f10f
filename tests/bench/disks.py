"""What a disk by device-mapper costs, made and removed: by the root helper, beside the commands that do the same.

    PYTHONPATH=tests python -m bench.disks [CYCLES]

In the lab, which has device-mapper and a helper that systemd started. Both make the same devices: one over the image,
one over the file with changes, zeros behind the image, and the snapshot. They take turns, in one run."""

import os
import pwd
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles

import grpc

from ingle.helper.v1 import helper_pb2 as pb
from ingle.helper.v1 import helper_pb2_grpc

_INSIDE = "/opt/lab/repository"
_WARM_UP = 5
_MIB = 1 << 20
_IMAGE_BYTES, _DISK_BYTES = 512 * _MIB, 8 << 30
_VM, _IMAGE = "0" * 12, "0" * 64
_STATE = Path("/var/lib/ingle")
_SOCKET = "/run/ingle-helper-dm/helper.sock"


def main(cycles: int) -> None:
    """Have it measured in a lab, and print what it prints."""
    from lab import disk, machine, payload  # noqa: PLC0415 # the lab has no lab

    with tempfile.TemporaryDirectory() as scratch:
        logs = Path(scratch)
        archive = payload.archive(payload.wheel(logs))
        with machine.running(disk.cached(print), logs) as lab:
            lab.guest.run("mkdir", "-p", _INSIDE)
            lab.guest.copy_in(archive, _INSIDE)
            install = f"/opt/ingle/bin/pip install --quiet --no-index --no-deps {_INSIDE}/dist/*.whl"
            lab.guest.run("sh", "-ec", f"{install}; ingle system install; systemctl stop ingle.service")
            measure = f"cd {_INSIDE}/tests; /opt/lab/venv/bin/python -m bench.disks {cycles} inside"
            sys.stdout.write(lab.guest.run("sh", "-ec", measure))


def inside(cycles: int) -> None:
    """Print percentiles of both in milliseconds, and their ratio."""
    image = _ingles(_STATE / "images" / _IMAGE / "rootfs.ext4", _IMAGE_BYTES)
    changes = _STATE / "vms" / _VM / "disk.cow"
    create = pb.CreateSnapshotDeviceRequest(vm_id=_VM, image_id=_IMAGE, size_bytes=_DISK_BYTES)
    remove = pb.RemoveSnapshotDeviceRequest(vm_id=_VM)
    times: dict[str, list[float]] = {}

    def timed(name: str, action: Callable[[], object]) -> None:
        began = time.perf_counter()
        action()
        times.setdefault(name, []).append((time.perf_counter() - began) * 1000)

    with grpc.insecure_channel(f"unix:{_SOCKET}") as channel:
        helper = helper_pb2_grpc.HelperServiceStub(channel)
        for _ in range(cycles + _WARM_UP):
            _ingles(changes, _DISK_BYTES)
            timed("helper", lambda: (helper.CreateSnapshotDevice(create), helper.RemoveSnapshotDevice(remove)))
            _ingles(changes, _DISK_BYTES)
            timed("commands", lambda: _by_commands(image, changes))
    cuts = {name: quantiles(values[_WARM_UP:], n=100) for name, values in times.items()}
    for name, cut in cuts.items():
        print(f"{name:<9} p50 {cut[49]:7.2f} ms   p95 {cut[94]:7.2f} ms   p99 {cut[98]:7.2f} ms")
    ratios = (
        f"p{percent} {cuts['helper'][percent - 1] / cuts['commands'][percent - 1]:.2f}" for percent in (50, 95, 99)
    )
    print(f"helper / commands: {', '.join(ratios)}; {cycles} cycles")


def _by_commands(image: Path, changes: Path) -> None:
    of_image = _run("losetup", "--find", "--show", "--read-only", str(image))
    of_changes = _run("losetup", "--find", "--show", str(changes))
    whole, all_of_it = _IMAGE_BYTES // 512, _DISK_BYTES // 512
    base = f"0 {whole} linear {of_image} 0\n{whole} {all_of_it - whole} zero"
    _run("dmsetup", "create", "bench-base", "--readonly", stdin=base)
    _run("dmsetup", "create", "bench", stdin=f"0 {all_of_it} snapshot {_number('bench-base')} {of_changes} PO 8")
    _run("dmsetup", "remove", "bench")
    _run("dmsetup", "remove", "bench-base")
    _run("losetup", "--detach", of_changes)
    _run("losetup", "--detach", of_image)


def _number(name: str) -> str:
    """A device's, "253:0", without a command."""
    (found,) = (path for path in Path("/sys/block").glob("dm-*") if (path / "dm/name").read_text().strip() == name)
    return (found / "dev").read_text().strip()


def _run(*argv: str, stdin: str = "") -> str:
    return subprocess.run(argv, input=stdin, text=True, check=True, stdout=subprocess.PIPE).stdout.strip()


def _ingles(path: Path, size: int) -> Path:
    """A new sparse file that belongs to the API server's user."""
    user = pwd.getpwnam("ingle")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, size)
    os.chown(path, user.pw_uid, user.pw_gid)
    return path


if __name__ == "__main__":
    (inside if "inside" in sys.argv else main)(int(sys.argv[1]) if len(sys.argv) > 1 else 200)

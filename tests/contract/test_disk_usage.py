"""What is taken of the host's disks, and what gives it back: over gRPC and by the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

from contract.test_engines import create, delete
from harness import Server
from ingle.v1 import image_pb2, kernel_pb2, system_pb2, vm_pb2
from uploading import image_upload

_KINDS = system_pb2.DiskUseKind
MIB = 1 << 20


def usage(server: Server, **fields: bool) -> system_pb2.GetDiskUsageResponse:
    return server.system.GetDiskUsage(system_pb2.GetDiskUsageRequest(**fields))


def used(server: Server, kind: str) -> system_pb2.DiskUse:
    (use,) = (use for use in usage(server).uses if use.kind == _KINDS.Value(f"DISK_USE_KIND_{kind}"))
    return use


def ingle(server: Server, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "ingle.cli", *arguments],
        env={**server.env, "INGLE_SOCKET": str(server.socket)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_a_guest_writes_is_its_vms_and_goes_with_it(red_server: Server) -> None:
    made = create(red_server, "big", "red", disk_bytes=1024 * MIB)
    (before,) = usage(red_server, each_vm=True).vms
    (disk,) = (red_server.state / "vms" / made.id).glob("disk.*")
    with disk.open("ab") as file:
        file.write(os.urandom(5 * MIB))
        file.flush()
        os.fsync(file.fileno())
    found = usage(red_server, each_vm=True)
    (after,) = found.vms
    assert (after.vm_id, after.name, after.disk_bytes) == (made.id, "big", 1024 * MIB)
    assert 5 * MIB <= after.allocated_bytes - before.allocated_bytes < 6 * MIB
    assert after.shared_bytes == 0, "its disk is a copy"
    assert used(red_server, "VM_DISKS").allocated_bytes == after.allocated_bytes
    assert used(red_server, "VM_DISKS").apparent_bytes == 1024 * MIB
    assert used(red_server, "IMAGES").reclaimable_bytes == 0, "a VM uses it"
    promised = max(each.promised_bytes for each in found.file_systems)
    assert promised == 1024 * MIB - after.allocated_bytes
    assert all(each.size_bytes >= each.free_bytes > 0 for each in found.file_systems)
    assert not usage(red_server).vms, "only when they are asked for"
    delete(red_server, made.id)
    assert used(red_server, "VM_DISKS").allocated_bytes == 0


def test_disks_that_can_not_be_backed_are_promised_with_a_warning(red_server: Server) -> None:
    spec = ("--engine", "red", "--image", "tiny", "--kernel", "made-up", "--name", "promised", "--disk-size", "15T")
    made = ingle(red_server, "vm", "create", "--no-start", *spec)
    assert made.returncode == 0
    assert "warning: a disk of 15 TiB: VMs may then write" in made.stderr
    checks = {check.name: check.status for check in red_server.system.Examine(system_pb2.ExamineRequest()).checks}
    assert checks["disk room"] == system_pb2.CHECK_STATUS_WARN
    delete(red_server, "promised")


def test_what_lies_about_and_is_of_nothing_known_is_told(red_server: Server) -> None:
    before = used(red_server, "OTHER")
    left = red_server.state / "images" / "op-left-behind"
    left.mkdir()
    (left / "upload").write_bytes(os.urandom(3 * MIB))
    os.sync()
    after = used(red_server, "OTHER")
    assert after.count == before.count + 1
    assert after.allocated_bytes >= before.allocated_bytes + 3 * MIB
    (left / "upload").unlink()
    left.rmdir()


def test_the_command_line_shows_it_and_prunes_what_no_vm_uses(red_server: Server, tmp_path: Path) -> None:
    made = create(red_server, "user", "red")
    (tmp_path / "file").write_text("another one")
    red_server.images.RegisterImage(image_upload("unused", tmp_path))
    told = json.loads(ingle(red_server, "df", "--json").stdout)
    assert {use["kind"] for use in told["uses"]} == {
        value.name.removeprefix("DISK_USE_KIND_").lower() for value in _KINDS.DESCRIPTOR.values if value.number
    }
    shown = ingle(red_server, "df", "-v").stdout
    assert "ingle image prune --all" in shown
    assert made.id in shown
    refused = ingle(red_server, "image", "prune", "--all")
    assert (refused.returncode, "ingle image prune --all --force" in refused.stderr) == (1, True)
    would = ingle(red_server, "image", "prune", "--all", "--dry-run")
    pruned = ingle(red_server, "image", "prune", "--all", "--force")
    assert "unused" in would.stdout
    assert "unused" in pruned.stdout
    assert pruned.stderr == would.stderr.replace("would free", "freed")
    names = [
        name for image in red_server.images.ListImages(image_pb2.ListImagesRequest()).images for name in image.names
    ]
    assert names == ["tiny"], "a VM uses it"
    assert json.loads(ingle(red_server, "image", "prune", "-f", "--json").stdout) == []
    delete(red_server, made.id)
    assert [
        kernel.names
        for kernel in red_server.kernels.PruneKernels(kernel_pb2.PruneKernelsRequest(dry_run=True, all=True)).kernels
    ] == [["made-up"]]


def test_the_database_keeps_its_locks_when_it_is_measured(red_server: Server) -> None:
    """Without them whoever else opens it takes its log away from under the server."""

    def locks() -> list[str]:
        inode = (red_server.state / "ingle.db").stat().st_ino
        return [line for line in Path("/proc/locks").read_text().splitlines() if f":{inode} " in line]

    assert red_server.vms.ListVms(vm_pb2.ListVmsRequest()) is not None
    before = locks()
    assert before
    usage(red_server, each_vm=True)
    assert len(locks()) == len(before)

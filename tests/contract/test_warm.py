"""Memories that VMs begin with, through the whole server and by the command line; their engine is a stand-in."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Server, no_process_left, nothing_left, refused, server_directory
from ingle.testing import made_up
from ingle.v1 import image_pb2, kernel_pb2, operation_pb2, system_pb2, vm_pb2
from slow import mostly_slow
from uploading import image_upload, kernel_upload

_SECONDS = 30.0


@pytest.fixture
def server() -> Iterator[Server]:
    """One that makes memories by itself, with an image and a kernel."""
    with server_directory() as root:
        server = new_server(root)
        server.start()
        try:
            (root / "tree").mkdir()
            (root / "tree" / "file").write_text("all that an image needs")
            server.images.RegisterImage(image_upload("tiny", root / "tree"))
            server.kernels.ImportKernel(kernel_upload("made-up", made_up.VMLINUX))
            yield server
        finally:
            if server.process is not None and server.process.poll() is None:
                for vm in server.list():
                    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
                nothing_left(server)
                assert server.stop() == 0, server.said()
            no_process_left(server)


def new_server(root: Path) -> Server:
    server = Server(root, {"PYTHONPATH": os.pathsep.join(sys.path), "INGLE_WARM": "true"})
    server.argv = [sys.executable, "-m", "ingle.testing.serve", "red", "serve"]
    return server


def spec(**fields: object) -> vm_pb2.VmSpec:
    return vm_pb2.VmSpec(image="tiny", kernel="made-up", disk_bytes=2**27, **fields)  # type: ignore[arg-type]


def create(server: Server, **fields: object) -> vm_pb2.Vm:
    return server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec(**fields))).vm


def delete(server: Server, vm: vm_pb2.Vm) -> None:
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def memories(server: Server) -> list[image_pb2.WarmMemory]:
    return list(server.images.ListWarmMemories(image_pb2.ListWarmMemoriesRequest()).memories)


def warmed(server: Server, **fields: object) -> image_pb2.WarmMemory:
    return server.images.WarmImage(image_pb2.WarmImageRequest(spec=spec(**fields))).memory


def until_made(server: Server, count: int) -> None:
    deadline = time.monotonic() + _SECONDS
    while len(memories(server)) < count:
        assert time.monotonic() < deadline, server.said()
        time.sleep(0.05)


def entry(server: Server, memory: image_pb2.WarmMemory) -> Path:
    return server.root / "cache" / "ingle" / "warm" / memory.key


def test_the_first_vm_boots_and_the_next_one_begins_with_a_memory(server: Server) -> None:
    assert create(server).boot_mode == vm_pb2.BOOT_MODE_COLD
    until_made(server, 1)
    second = create(server)
    assert second.boot_mode == vm_pb2.BOOT_MODE_WARM, server.said()
    (memory,) = memories(server)
    assert memory.vms == 1
    assert memory.usable
    assert memory.used_at.ToDatetime() > memory.created_at.ToDatetime()
    again = server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=second.id)).vm
    assert again.boot_mode == vm_pb2.BOOT_MODE_COLD, "its disk has changed since"
    stopped = server.vms.StopVm(vm_pb2.StopVmRequest(vm=second.id)).vm
    assert stopped.boot_mode == vm_pb2.BOOT_MODE_UNSPECIFIED
    operations = server.operations.ListOperations(operation_pb2.ListOperationsRequest()).operations
    (made,) = (each for each in operations if each.kind == operation_pb2.OPERATION_KIND_WARM_IMAGE)
    assert made.state == operation_pb2.OPERATION_STATE_SUCCEEDED
    assert made.target_id == memory.image_id


def test_who_wants_to_boot_does_and_who_wants_a_memory_has_it_made(server: Server) -> None:
    first = create(server, boot_mode=vm_pb2.BOOT_MODE_WARM)
    assert first.boot_mode == vm_pb2.BOOT_MODE_WARM
    assert create(server, boot_mode=vm_pb2.BOOT_MODE_COLD).boot_mode == vm_pb2.BOOT_MODE_COLD
    assert create(server).boot_mode == vm_pb2.BOOT_MODE_WARM
    assert create(server, vcpus=2).boot_mode == vm_pb2.BOOT_MODE_COLD, "it is another machine"


def test_one_that_must_begin_with_a_memory_and_can_not_is_refused(server: Server) -> None:
    error = refused(create, server, boot_mode=vm_pb2.BOOT_MODE_WARM, init=vm_pb2.INIT_IMAGE)
    assert error.reason == "INVALID_ARGUMENT"
    assert error.remedy == "--boot auto"
    assert refused(warmed, server, init=vm_pb2.INIT_IMAGE).reason == "INVALID_ARGUMENT"
    assert refused(create, server, boot_mode=77).reason == "INVALID_ARGUMENT"
    assert create(server, init=vm_pb2.INIT_IMAGE).boot_mode == vm_pb2.BOOT_MODE_COLD
    assert memories(server) == []


@pytest.mark.parametrize("name", ["memory/memory", "disk", "manifest.json"])
def test_a_memory_that_is_damaged_is_told_deleted_and_booted_without(server: Server, name: str) -> None:
    file = entry(server, warmed(server)) / name
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-1])
    begun = server.vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest(spec=spec()))
    *_, last = server.operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id=begun.operation_id))
    assert last.operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED
    assert last.operation.vm.boot_mode == vm_pb2.BOOT_MODE_COLD
    (warning,) = last.operation.warnings
    assert "damaged" in warning
    assert "boots" in warning
    until_made(server, 1)
    assert create(server).boot_mode == vm_pb2.BOOT_MODE_WARM


def test_a_memory_of_another_agent_is_never_begun_with_and_goes_when_there_is_a_new_one(server: Server) -> None:
    memory = warmed(server)
    manifest = entry(server, memory) / "manifest.json"
    told = json.loads(manifest.read_text())
    told["machine"]["agent"] = "0" * 64
    manifest.write_text(json.dumps(told))
    old = "ab" * 32
    entry(server, memory).rename(entry(server, image_pb2.WarmMemory(key=old)))
    assert [each.usable for each in memories(server)] == [False]
    assert create(server).boot_mode == vm_pb2.BOOT_MODE_COLD


def test_memories_go_with_their_image_and_their_kernel(server: Server) -> None:
    warmed(server)
    server.images.DeleteImage(image_pb2.DeleteImageRequest(image="tiny"))
    assert memories(server) == []
    server.images.RegisterImage(image_upload("tiny", server.root / "tree"))
    warmed(server)
    server.kernels.DeleteKernel(kernel_pb2.DeleteKernelRequest(kernel="made-up"))
    assert memories(server) == []


def test_pruning_spares_what_can_be_begun_with_and_always_what_is_in_use(server: Server) -> None:
    used, unused = warmed(server), warmed(server, vcpus=2)
    vm = create(server)
    prune = server.images.PruneWarmMemories
    assert prune(image_pb2.PruneWarmMemoriesRequest()).memories == []
    told = prune(image_pb2.PruneWarmMemoriesRequest(all=True, dry_run=True)).memories
    assert [each.key for each in told] == [unused.key]
    assert len(memories(server)) == 2
    assert [each.key for each in prune(image_pb2.PruneWarmMemoriesRequest(all=True)).memories] == [unused.key]
    delete(server, vm)
    assert [each.key for each in prune(image_pb2.PruneWarmMemoriesRequest(all=True)).memories] == [used.key]


def test_together_they_take_no_more_than_is_allowed(server: Server) -> None:
    first = warmed(server)
    config = server.root / "config" / "ingle" / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f"warm_cache_bytes = {first.allocated_bytes}\n")
    second = warmed(server, vcpus=2)
    assert [each.key for each in memories(server)] == [second.key]
    config.write_text("warm_cache_bytes = 1\n")
    third = server.images.BeginWarmImage(image_pb2.BeginWarmImageRequest(spec=spec(memory_bytes=2**28)))
    *_, last = server.operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id=third.operation_id))
    assert "warm_cache_bytes is 1 byte" in last.operation.warnings[0]
    assert memories(server) == []
    wish = spec(boot_mode=vm_pb2.BOOT_MODE_WARM)
    begun = server.vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest(spec=wish))
    *_, last = server.operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id=begun.operation_id))
    assert last.operation.vm.boot_mode == vm_pb2.BOOT_MODE_COLD
    assert "is deleted" in last.operation.warnings[-1]


def test_a_server_that_is_switched_off_makes_none_and_begins_with_none(server: Server) -> None:
    warmed(server)
    config = server.root / "config" / "ingle" / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    server.stop()
    server.env.pop("INGLE_WARM")
    server.start()
    config.write_text("warm = false\n")
    assert create(server).boot_mode == vm_pb2.BOOT_MODE_COLD
    assert create(server, boot_mode=vm_pb2.BOOT_MODE_WARM).boot_mode == vm_pb2.BOOT_MODE_WARM, "it is asked for"
    config.write_text("warm = true\nwarm_cache_bytes = 0\n")
    assert create(server).boot_mode == vm_pb2.BOOT_MODE_WARM, "it is there"
    assert create(server, vcpus=2).boot_mode == vm_pb2.BOOT_MODE_COLD
    time.sleep(2)
    assert len(memories(server)) == 1


@pytest.mark.parametrize("seconds", mostly_slow([0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6], 0.1, 0.2, 0.4))
def test_a_server_that_is_killed_amid_making_one_leaves_nothing_of_it(server: Server, seconds: float) -> None:
    server.images.BeginWarmImage(image_pb2.BeginWarmImageRequest(spec=spec()))
    time.sleep(seconds)
    server.kill()
    server.start()
    no_process_left(server)
    nothing_left(server)
    work = server.root / "cache" / "ingle" / "warm" / ".work"
    assert not work.exists()
    assert create(server).boot_mode in (vm_pb2.BOOT_MODE_COLD, vm_pb2.BOOT_MODE_WARM)


def test_making_one_can_be_cancelled_and_is_when_the_server_stops(server: Server) -> None:
    begun = server.images.BeginWarmImage(image_pb2.BeginWarmImageRequest(spec=spec()))
    request = operation_pb2.CancelOperationRequest(operation_id=begun.operation_id)
    ended = server.operations.CancelOperation(request).operation
    assert ended.state == operation_pb2.OPERATION_STATE_CANCELLED
    nothing_left(server)
    assert memories(server) == []
    server.images.BeginWarmImage(image_pb2.BeginWarmImageRequest(spec=spec()))
    assert server.stop() == 0
    server.start()
    nothing_left(server)


def ingle(server: Server, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ingle.cli", *arguments],
        env={**server.env, "INGLE_SOCKET": str(server.socket)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_makes_lists_and_prunes_them(server: Server) -> None:
    options = ("--kernel", "made-up", "--disk-size", "128M")
    made = json.loads(ingle(server, "image", "warm", "tiny", *options, "--json"))
    assert "tiny" in ingle(server, "image", "list", "--warm")
    (listed,) = json.loads(ingle(server, "image", "list", "--warm", "--json"))
    assert listed["key"] == made[0]["key"]
    (use,) = (
        use
        for use in server.system.GetDiskUsage(system_pb2.GetDiskUsageRequest()).uses
        if use.kind == system_pb2.DISK_USE_KIND_WARM_MEMORY
    )
    assert use.count == 1
    assert use.reclaimable_bytes == int(listed["allocated_bytes"]) <= use.allocated_bytes
    assert use.command in ingle(server, "df")
    ingle(server, "vm", "create", "--image", "tiny", "--name", "one", "--boot", "warm", *options)
    assert "boot          warm" in ingle(server, "vm", "show", "one")
    assert json.loads(ingle(server, "image", "prune", "--warm", "--all", "-f", "--json")) == [], "a VM uses it"
    ingle(server, "vm", "delete", "--force", "one")
    (pruned,) = json.loads(ingle(server, "image", "prune", "--warm", "--all", "-f", "--json"))
    assert pruned["key"] == listed["key"]
    assert memories(server) == []

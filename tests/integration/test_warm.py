"""VMs that begin with the memory of a guest that has booted: each is one of its own, and none is worse for it."""

import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import NewServer, Server, nothing_left, warm_cache
from ingle.api_server.host.files import content_digest
from ingle.v1 import image_pb2, operation_pb2, vm_pb2
from slow import mostly_slow

_FORKS = 8
STAGES = ("agent", "save-pristine", "share-pristine", "publish-pristine")
_CLOCK_SECONDS = 0.05


def create(server: Server, **fields: object) -> vm_pb2.Vm:
    spec = vm_pb2.VmSpec(**fields)  # type: ignore[arg-type]
    return server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm


def delete(server: Server, *vms: vm_pb2.Vm) -> None:
    for vm in vms:
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def said(server: Server, vm: vm_pb2.Vm, script: str) -> str:
    code, out, err = server.run(vm.id, "sh", "-c", script)
    assert code == 0, err
    return out.decode().strip()


@pytest.fixture(scope="module")
def forks(server: Server) -> Iterator[list[vm_pb2.Vm]]:
    """Eight at once, each with variables of its own."""

    def one(number: int) -> vm_pb2.Vm:
        return create(server, name=f"warm-{number}", env={"NUMBER": str(number)})

    with ThreadPoolExecutor(_FORKS) as pool:
        vms = list(pool.map(one, range(_FORKS)))
    yield vms
    delete(server, *vms)


def everywhere(server: Server, vms: list[vm_pb2.Vm], script: str) -> list[str]:
    with ThreadPoolExecutor(_FORKS) as pool:
        return list(pool.map(lambda vm: said(server, vm, script), vms))


def test_all_of_them_begin_with_the_memory(server: Server, forks: list[vm_pb2.Vm]) -> None:
    assert [vm.boot_mode for vm in forks] == [vm_pb2.BOOT_MODE_WARM] * _FORKS
    (memory,) = server.images.ListWarmMemories(image_pb2.ListWarmMemoriesRequest()).memories
    assert memory.vms >= _FORKS


@pytest.mark.parametrize(
    "script",
    [
        "cat /proc/sys/kernel/hostname",
        "cat /etc/hostname",
        "cat /etc/machine-id",
        "cat /sys/class/net/eth0/address",
        "od -An -tx1 -N16 /dev/urandom",
        "od -An -tx1 -N16 /dev/random",
        'perl -e \'require "syscall.ph"; $b = "\\0" x 16; syscall(318, $b, 16, 0); print unpack("H*", $b)\'',
        "cat /proc/sys/kernel/random/uuid",
        "mktemp -u",
        "echo $NUMBER",
    ],
)
def test_what_tells_one_from_another_differs(server: Server, forks: list[vm_pb2.Vm], script: str) -> None:
    told = everywhere(server, forks, script)
    assert all(told)
    assert len(set(told)) == _FORKS, told


def test_each_knows_itself_by_the_name_and_the_variables_that_it_was_given(
    server: Server, forks: list[vm_pb2.Vm]
) -> None:
    assert everywhere(server, forks, "hostname; echo $NUMBER") == [f"warm-{n}\n{n}" for n in range(_FORKS)]
    assert everywhere(server, forks, "getent hosts $(hostname) >/dev/null && echo found") == ["found"] * _FORKS


def test_the_boot_id_is_that_of_the_guest_that_has_booted(server: Server, forks: list[vm_pb2.Vm]) -> None:
    """As `docs/operating.md` says: what programs in a guest tell boots apart by."""
    told = everywhere(server, forks, "cat /proc/sys/kernel/random/boot_id")
    assert len(set(told)) == 1
    assert {vm.boot_id for vm in forks} == set(told)


def test_the_clock_is_right_from_the_first_command_on(server: Server) -> None:
    for _ in range(3):
        vm = create(server)
        said(server, vm, "date +%s%N")  # the first command of its kind takes a while to begin
        before = time.time()
        shown = int(said(server, vm, "date +%s%N")) / 1e9
        after = time.time()
        delete(server, vm)
        assert before - _CLOCK_SECONDS <= shown <= after + _CLOCK_SECONDS


def test_a_token_opens_its_own_guest_alone(server: Server, forks: list[vm_pb2.Vm]) -> None:
    manifest = json.loads(next(warm_cache(server.root).glob("*/manifest.json")).read_text())
    with sqlite3.connect(f"file:{server.state / 'ingle.db'}?mode=ro", uri=True) as db:
        tokens = [bytes(row[0]) for row in db.execute("SELECT token FROM vms WHERE name LIKE 'warm-%'")]
    assert len(set(tokens)) == _FORKS
    assert bytes.fromhex(manifest["token"]) not in tokens


def test_a_disk_is_ones_own(server: Server, forks: list[vm_pb2.Vm]) -> None:
    everywhere(server, forks, "hostname >/root/mine && sync")
    assert everywhere(server, forks, "cat /root/mine") == [vm.name for vm in forks]
    disks = {(server.state / "vms" / vm.id / "disk.qcow2").stat().st_ino for vm in forks}
    assert len(disks) == _FORKS


def test_each_reaches_what_is_beyond_its_network(server: Server, forks: list[vm_pb2.Vm]) -> None:
    """Through a connection that it makes itself, with the addresses that it has."""
    script = "ip -4 -o addr show eth0 | grep -o '10.0.2.15/24'; ip route | grep -o 'default via 10.0.2.2'"
    assert set(everywhere(server, forks, script)) == {"10.0.2.15/24\ndefault via 10.0.2.2"}


def test_timers_fire_once_and_on_time(server: Server, forks: list[vm_pb2.Vm]) -> None:
    began = time.monotonic()
    assert everywhere(server, forks, "sleep 1; echo fired") == ["fired"] * _FORKS
    assert time.monotonic() - began >= 1


def test_nothing_of_the_guest_that_has_booted_runs_in_them(server: Server, forks: list[vm_pb2.Vm]) -> None:
    """Beside the agent, there is this very shell."""
    processes = 'for p in /proc/[0-9]*; do echo "$(readlink $p/exe)"; done | grep -v -e "^$" -e /dash -e /grep'
    assert set(everywhere(server, forks, processes)) == {"/init (deleted)"}


def test_one_that_is_started_again_boots_and_has_what_it_had(server: Server) -> None:
    vm = create(server)
    machine = said(server, vm, "echo kept >/root/file; sync; cat /etc/machine-id")
    again = server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=vm.id)).vm
    assert again.boot_mode == vm_pb2.BOOT_MODE_COLD
    assert again.boot_id != vm.boot_id
    assert said(server, vm, "cat /root/file") == "kept"
    assert said(server, vm, "cat /etc/machine-id") == machine
    delete(server, vm)


def test_keys_are_its_own(server: Server) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8VnHTn6P1BxSxKXkWzTqQpVQ0mWm5qLh6nJq2l0d4t me"
    vm, other = create(server, ssh_keys=[key]), create(server)
    assert said(server, vm, "cat /root/.ssh/authorized_keys").startswith(key)
    assert said(server, other, "cat /root/.ssh/authorized_keys 2>/dev/null || true") == ""
    delete(server, vm, other)


def damaged(path: Path, damage: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    damage(content)
    path.unlink()  # others have the same file
    path.write_bytes(content)


@pytest.mark.parametrize("name", mostly_slow(["memory/ram", "memory/state", "disk"], "memory/ram"))
def test_a_damaged_memory_is_not_begun_with_and_told(new_server: NewServer, name: str) -> None:
    server = new_server()
    (entry,) = (path for path in warm_cache(server.root).iterdir() if len(path.name) == 64)

    def flip(content: bytearray) -> None:
        content[len(content) // 2 + 77] ^= 4

    damaged(entry / name, flip)
    begun = server.vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest())
    *_, last = server.operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id=begun.operation_id))
    assert last.operation.vm.boot_mode == vm_pb2.BOOT_MODE_COLD
    assert "damaged" in last.operation.warnings[0]
    assert not entry.exists()


def test_a_memory_that_the_vmm_refuses_is_booted_without(new_server: NewServer) -> None:
    """Though its hashes are right, as of one of another QEMU that called itself this one."""
    server = new_server()
    (entry,) = (path for path in warm_cache(server.root).iterdir() if len(path.name) == 64)
    manifest = json.loads((entry / "manifest.json").read_text())
    state = entry / "memory" / "state"
    content = bytearray(state.read_bytes())
    content[:4] = b"none"
    state.unlink()
    state.write_bytes(content)
    manifest["files"]["memory/state"]["digest"] = content_digest(state)
    (entry / "manifest.json").unlink()
    (entry / "manifest.json").write_text(json.dumps(manifest))
    begun = server.vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest())
    *_, last = server.operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id=begun.operation_id))
    assert last.operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED
    assert last.operation.vm.boot_mode == vm_pb2.BOOT_MODE_COLD
    assert "can't be started from" in last.operation.warnings[0]
    assert said(server, last.operation.vm, "echo works") == "works"


def test_a_vm_lives_on_when_the_cache_is_deleted_under_it(new_server: NewServer) -> None:
    server = new_server()
    vm = create(server)
    assert vm.boot_mode == vm_pb2.BOOT_MODE_WARM
    subprocess.run(["rm", "-rf", warm_cache(server.root)], check=True)
    said(server, vm, "find / -xdev -type f -size -100k -exec cat {} + >/dev/null; sync")
    again = server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=vm.id)).vm
    assert said(server, again, "echo $?") == "0"
    assert create(server).boot_mode == vm_pb2.BOOT_MODE_COLD


@pytest.mark.parametrize(
    "stage", mostly_slow(["agent", "save-pristine", "share-pristine", "publish-pristine"], "share-pristine")
)
def test_a_server_that_is_killed_amid_making_one_leaves_nothing_of_it(new_server: NewServer, stage: str) -> None:
    server = new_server({"INGLE_WARM_CACHE_BYTES": "1G"})
    spec = vm_pb2.VmSpec(memory_bytes=2**28)
    begun = server.images.BeginWarmImage(image_pb2.BeginWarmImageRequest(spec=spec))
    watch = operation_pb2.WatchOperationRequest(operation_id=begun.operation_id)
    for told in server.operations.WatchOperation(watch):
        if stage in [each.name for each in told.operation.stages]:
            break
    server.kill()
    server.start()
    nothing_left(server)
    assert not (warm_cache(server.root) / ".work").exists()
    assert create(server, memory_bytes=2**28).boot_mode in (vm_pb2.BOOT_MODE_COLD, vm_pb2.BOOT_MODE_WARM)


def test_the_first_vm_of_a_kind_has_one_made_for_the_next(new_server: NewServer) -> None:
    server = new_server({"INGLE_WARM_CACHE_BYTES": "1G"})
    first = create(server, memory_bytes=2**28)
    assert first.boot_mode == vm_pb2.BOOT_MODE_COLD
    deadline = time.monotonic() + 600  # it leaves the processors to all others
    while len(server.images.ListWarmMemories(image_pb2.ListWarmMemoriesRequest()).memories) < 2:
        assert time.monotonic() < deadline, server.said()
        time.sleep(0.2)
    assert create(server, memory_bytes=2**28).boot_mode == vm_pb2.BOOT_MODE_WARM

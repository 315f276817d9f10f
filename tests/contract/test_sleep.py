"""VMs that stand still until somebody uses them; their engine is a stand-in."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from harness import Server, refused
from ingle.v1 import event_pb2, guest_pb2, operation_pb2, system_pb2, vm_pb2

PAUSED, HIBERNATED = vm_pb2.VM_STATE_PAUSED, vm_pb2.VM_STATE_HIBERNATED
RUNNING, STOPPED = vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_STOPPED

Verb = Callable[[Server, vm_pb2.Vm], object]


@pytest.fixture
def vm(red_server: Server) -> Iterator[vm_pb2.Vm]:
    """A running VM."""
    spec = vm_pb2.VmSpec(name="dozer", engine="red", image="tiny", kernel="made-up")
    vm = red_server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm
    yield vm
    for each in red_server.list():
        red_server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=each.id, force=True))


def pause(server: Server, vm: vm_pb2.Vm) -> vm_pb2.Vm:
    return server.vms.PauseVm(vm_pb2.PauseVmRequest(vm=vm.id)).vm


def resume(server: Server, vm: vm_pb2.Vm) -> vm_pb2.Vm:
    return server.vms.ResumeVm(vm_pb2.ResumeVmRequest(vm=vm.id)).vm


def hibernate(server: Server, vm: vm_pb2.Vm) -> vm_pb2.Vm:
    return server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id)).vm


def wake(server: Server, vm: vm_pb2.Vm) -> vm_pb2.Vm:
    return server.vms.WakeVm(vm_pb2.WakeVmRequest(vm=vm.id)).vm


def state(server: Server, vm: vm_pb2.Vm) -> vm_pb2.VmState.ValueType:
    return server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm.state


def stands_still(vm: vm_pb2.Vm) -> bool:
    """Whether the process that is its guest does."""
    children = Path(f"/proc/{vm.pid}/task/{vm.pid}/children").read_text().split()
    agents = [pid for child in children for pid in Path(f"/proc/{child}/task/{child}/children").read_text().split()]
    assert agents
    return all(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T" for pid in agents)


def memory(server: Server, vm: vm_pb2.Vm) -> Path:
    """Where it is while the VM hibernates."""
    return server.state / "vms" / vm.id / "memory"


def told(server: Server, vm: vm_pb2.Vm) -> list[str]:
    """Kinds of events of the VM, in their order."""
    request = event_pb2.WatchEventsRequest(after=0, no_follow=True, resource=vm.id)
    return [
        event_pb2.EventKind.Name(answer.event.kind).removeprefix("EVENT_KIND_VM_")
        for answer in server.channel.unary_stream(
            "/ingle.v1.EventService/WatchEvents",
            request_serializer=event_pb2.WatchEventsRequest.SerializeToString,
            response_deserializer=event_pb2.WatchEventsResponse.FromString,
        )(request)
        if answer.HasField("event")
    ]


def test_a_paused_vm_stands_still_until_it_is_resumed(red_server: Server, vm: vm_pb2.Vm) -> None:
    asleep = pause(red_server, vm)
    assert (asleep.state, asleep.pid, stands_still(vm)) == (PAUSED, vm.pid, True)
    assert asleep.HasField("asleep_since")
    awake = resume(red_server, vm)
    assert (awake.state, awake.pid, awake.boot_id, stands_still(vm)) == (RUNNING, vm.pid, vm.boot_id, False)
    assert not awake.HasField("asleep_since")
    assert told(red_server, vm)[-2:] == ["PAUSED", "RESUMED"]


def test_pausing_the_paused_and_resuming_what_runs_change_nothing(red_server: Server, vm: vm_pb2.Vm) -> None:
    assert resume(red_server, vm) == vm
    assert pause(red_server, vm) == pause(red_server, vm)
    assert told(red_server, vm).count("PAUSED") == 1


def test_what_does_not_run_is_not_paused_and_it_is_said_what_leads_on(red_server: Server, vm: vm_pb2.Vm) -> None:
    red_server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id))
    for verb, request in (
        (red_server.vms.PauseVm, vm_pb2.PauseVmRequest(vm=vm.id)),
        (red_server.vms.ResumeVm, vm_pb2.ResumeVmRequest(vm=vm.id)),
    ):
        error = refused(verb, request)
        assert (error.reason, error.remedy) == ("WRONG_STATE", "ingle vm start dozer")


def start(server: Server, vm: vm_pb2.Vm) -> None:
    server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id))


def restart(server: Server, vm: vm_pb2.Vm) -> None:
    server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=vm.id))


def stop(server: Server, vm: vm_pb2.Vm) -> None:
    server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id))


def kill(server: Server, vm: vm_pb2.Vm) -> None:
    server.vms.KillVm(vm_pb2.KillVmRequest(vm=vm.id))


VERBS = {start: RUNNING, restart: RUNNING, wake: RUNNING, stop: STOPPED, kill: STOPPED}


@pytest.mark.parametrize("fall_asleep", [pause, hibernate])
@pytest.mark.parametrize(("verb", "then"), VERBS.items())
def test_every_verb_leads_on_from_a_vm_that_sleeps(
    red_server: Server, vm: vm_pb2.Vm, fall_asleep: Verb, verb: Verb, then: vm_pb2.VmState.ValueType
) -> None:
    fall_asleep(red_server, vm)
    verb(red_server, vm)
    assert state(red_server, vm) == then
    start(red_server, vm)
    assert red_server.run(vm.id, "true")[0] == 0


@pytest.mark.parametrize("fall_asleep", [pause, hibernate])
def test_a_vm_that_sleeps_is_renamed_and_labelled_as_it_is_and_changed_once_it_is_stopped(
    red_server: Server, vm: vm_pb2.Vm, fall_asleep: Verb
) -> None:
    fall_asleep(red_server, vm)
    spec = vm_pb2.VmSpec(name="dreamer", labels={"a": "b"})
    mask = FieldMask(paths=["name", "labels"])
    changed = red_server.vms.UpdateVm(vm_pb2.UpdateVmRequest(vm=vm.id, spec=spec, update_mask=mask)).vm
    assert (changed.name, dict(changed.labels)) == ("dreamer", {"a": "b"})
    assert changed.state in {PAUSED, HIBERNATED}
    larger = vm_pb2.UpdateVmRequest(
        vm=vm.id, spec=vm_pb2.VmSpec(memory_bytes=2**30), update_mask=FieldMask(paths=["memory_bytes"])
    )
    assert "ingle vm stop dreamer" in refused(red_server.vms.UpdateVm, larger).remedy
    stop(red_server, vm)
    assert red_server.vms.UpdateVm(larger).vm.memory_bytes == 2**30


@pytest.mark.parametrize("fall_asleep", [pause, hibernate])
def test_a_vm_that_sleeps_is_deleted_by_force(red_server: Server, vm: vm_pb2.Vm, fall_asleep: Verb) -> None:
    fall_asleep(red_server, vm)
    assert "--force" in refused(red_server.vms.DeleteVm, vm_pb2.DeleteVmRequest(vm=vm.id)).remedy
    red_server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
    assert red_server.list() == []


@pytest.mark.parametrize(("fall_asleep", "woken"), [(pause, "RESUMED"), (hibernate, "WOKEN")])
def test_who_uses_a_guest_wakes_it_once_whoever_comes(
    red_server: Server, vm: vm_pb2.Vm, fall_asleep: Verb, woken: str
) -> None:
    fall_asleep(red_server, vm)
    with ThreadPoolExecutor(12) as callers:
        codes = list(callers.map(lambda _: red_server.run(vm.id, "true")[0], range(12)))
    assert codes == [0] * 12
    assert told(red_server, vm).count(woken) == 1
    console = b"".join(each.data for each in red_server.vms.StreamVmLogs(vm_pb2.StreamVmLogsRequest(vm=vm.id)))
    assert console.count(b"booting") == (1 if woken == "RESUMED" else 2), "and each time by one VMM"


@pytest.mark.parametrize("fall_asleep", [pause, hibernate])
@pytest.mark.parametrize("use", ["file", "ports", "sessions"])
def test_any_use_wakes(red_server: Server, vm: vm_pb2.Vm, fall_asleep: Verb, use: str, tmp_path: Path) -> None:
    fall_asleep(red_server, vm)
    (tmp_path / "file").write_text("x")
    match use:
        case "file":
            red_server.guest.StatFile(guest_pb2.StatFileRequest(vm=vm.id, path=str(tmp_path / "file")))
        case "ports":
            red_server.guest.ListPorts(guest_pb2.ListPortsRequest(vm=vm.id))
        case _:
            red_server.guest.ListSessions(guest_pb2.ListSessionsRequest(vm=vm.id))
    assert state(red_server, vm) == RUNNING


def test_who_looks_at_a_vm_wakes_nobody(red_server: Server, vm: vm_pb2.Vm) -> None:
    pause(red_server, vm)
    health = red_server.vms.GetVmHealth(vm_pb2.GetVmHealthRequest(vm=vm.id))
    assert (health.vmm_alive, health.agent_answers, health.problem) == (True, False, "")
    stats = red_server.vms.GetVmStats(vm_pb2.GetVmStatsRequest(vm=vm.id))
    assert stats.vmm.resident_bytes
    assert not stats.HasField("guest")
    assert refused(red_server.vms.PingVm, vm_pb2.PingVmRequest(vm=vm.id)).reason == "WRONG_STATE"
    assert state(red_server, vm) == PAUSED
    assert stands_still(vm)


def test_a_vm_that_hibernates_has_no_process_and_goes_on_where_it_was(red_server: Server, vm: vm_pb2.Vm) -> None:
    asleep = hibernate(red_server, vm)
    assert (asleep.state, asleep.pid, asleep.HasField("started_at")) == (HIBERNATED, 0, False)
    assert asleep.HasField("asleep_since")
    assert not [line for line in red_server.vmm_processes().values() if vm.id in line]
    assert memory(red_server, vm).is_dir()
    awake = wake(red_server, vm)
    assert (awake.state, awake.boot_id, awake.sleep_error) == (RUNNING, vm.boot_id, "")
    assert awake.pid
    assert not awake.HasField("asleep_since")
    assert not memory(red_server, vm).exists()
    assert told(red_server, vm)[-3:] == ["HIBERNATED", "WOKEN", "RESUMED"]


def test_what_is_saved_of_memory_is_told_with_what_else_takes_room(red_server: Server, vm: vm_pb2.Vm) -> None:
    def told() -> tuple[int, int]:
        answer = red_server.system.GetDiskUsage(system_pb2.GetDiskUsageRequest(each_vm=True))
        (use,) = [use for use in answer.uses if use.kind == system_pb2.DISK_USE_KIND_VM_MEMORY]
        return use.count, answer.vms[0].memory_bytes

    assert told() == (0, 0)
    hibernate(red_server, vm)
    count, size = told()
    assert count == 1
    assert size > 0


def test_hibernating_what_hibernates_changes_nothing(red_server: Server, vm: vm_pb2.Vm) -> None:
    pause(red_server, vm)
    assert hibernate(red_server, vm) == hibernate(red_server, vm)
    error = refused(red_server.vms.PauseVm, vm_pb2.PauseVmRequest(vm=vm.id))
    assert (error.reason, error.remedy) == ("WRONG_STATE", "ingle vm start dozer")
    assert refused(red_server.vms.ResumeVm, vm_pb2.ResumeVmRequest(vm=vm.id)).remedy == "ingle vm wake dozer"


def test_a_vm_that_hibernates_does_so_across_servers_and_takes_disk_but_no_memory_of_a_quota(
    red_server: Server, vm: vm_pb2.Vm
) -> None:
    hibernate(red_server, vm)
    red_server.kill()
    red_server.start()
    items = red_server.system.GetQuota(system_pb2.GetQuotaRequest()).items
    used = {item.name: item.used for item in items}
    on_disk = vm.disk_bytes + vm.memory_bytes
    assert (used["vms"], used["disk_bytes"], used["memory_bytes"], used["vcpus"]) == (1, on_disk, 0, 0)
    assert state(red_server, vm) == HIBERNATED
    assert red_server.run(vm.id, "true")[0] == 0


@pytest.mark.parametrize("damage", ["gone", "truncated", "of another engine"])
def test_a_memory_that_is_no_good_is_not_used_and_it_is_said_what_leads_on(
    red_server: Server, vm: vm_pb2.Vm, damage: str
) -> None:
    hibernate(red_server, vm)
    match damage:
        case "gone":
            shutil.rmtree(memory(red_server, vm))
        case "truncated":
            (memory(red_server, vm) / "memory").write_bytes(b"")
        case _:
            manifest = memory(red_server, vm) / "manifest.json"
            manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "key": "another"}))
    for _ in range(2):
        error = refused(red_server.vms.WakeVm, vm_pb2.WakeVmRequest(vm=vm.id))
        assert (error.reason, error.remedy) == ("WRONG_STATE", "to boot it from its disk: ingle vm restart dozer")
    asleep = red_server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm
    assert asleep.state == HIBERNATED
    assert "could not wake" in asleep.sleep_error
    assert told(red_server, vm)[-2:] == ["SLEEP_FAILED", "SLEEP_FAILED"]
    restart(red_server, vm)
    assert red_server.run(vm.id, "true")[0] == 0


def test_an_older_memory_is_never_put_beside_a_newer_disk(red_server: Server, vm: vm_pb2.Vm, tmp_path: Path) -> None:
    hibernate(red_server, vm)
    shutil.copytree(memory(red_server, vm), tmp_path / "older")
    wake(red_server, vm)
    hibernate(red_server, vm)
    shutil.rmtree(memory(red_server, vm))
    shutil.copytree(tmp_path / "older", memory(red_server, vm))
    assert "older disk" in refused(red_server.vms.WakeVm, vm_pb2.WakeVmRequest(vm=vm.id)).message
    assert state(red_server, vm) == HIBERNATED


def test_who_is_in_a_guest_that_is_hibernated_is_told_so(red_server: Server, vm: vm_pb2.Vm) -> None:
    command = red_server.guest.Exec(
        iter([guest_pb2.ExecRequest(start=guest_pb2.ExecStart(vm=vm.id, argv=["sleep", "1000"]))])
    )
    assert next(command).HasField("started")
    hibernate(red_server, vm)
    error = refused(list, command)
    assert (error.reason, "was hibernated in the middle of it" in error.message) == ("VM_ENDED", True)


def test_a_paused_vm_is_adopted_and_stands_still(red_server: Server, vm: vm_pb2.Vm) -> None:
    pause(red_server, vm)
    red_server.kill()
    red_server.start()
    assert state(red_server, vm) == PAUSED
    assert stands_still(vm)
    assert red_server.run(vm.id, "true")[0] == 0
    assert state(red_server, vm) == RUNNING


def test_a_vm_that_nobody_uses_falls_asleep_and_one_in_which_a_command_runs_does_not(red_server: Server) -> None:
    def create(**wishes: int) -> vm_pb2.Vm:
        spec = vm_pb2.VmSpec(engine="red", image="tiny", kernel="made-up")
        for name, seconds in wishes.items():
            getattr(spec, name).FromSeconds(seconds)
        return red_server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm

    busy, paused, hibernated, _ = (
        *(create(pause_after=1), create(pause_after=1)),
        *(create(hibernate_after=1), create(delete_after=1)),
    )
    command = red_server.guest.Exec(
        iter([guest_pb2.ExecRequest(start=guest_pb2.ExecStart(vm=busy.id, argv=["sleep", "1000"]))])
    )
    assert next(command).HasField("started")
    wished = {busy.id: RUNNING, paused.id: PAUSED, hibernated.id: HIBERNATED}
    deadline = time.monotonic() + 60
    while {vm.id: vm.state for vm in red_server.list()} != wished:
        assert time.monotonic() < deadline, red_server.list()
        time.sleep(0.1)
    command.cancel()
    never = vm_pb2.UpdateVmRequest(vm=paused.id, spec=vm_pb2.VmSpec(keep_awake=True, wake_by_name=False))
    never.spec.pause_after.FromSeconds(0)
    never.update_mask.paths.extend(["pause_after", "keep_awake", "wake_by_name"])
    changed = red_server.vms.UpdateVm(never).vm
    assert (changed.HasField("pause_after"), changed.keep_awake, changed.state) == (False, True, PAUSED)
    assert (paused.wake_by_name, changed.wake_by_name) == (True, False)
    for vm in red_server.list():
        red_server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def test_pausing_and_resuming_are_operations(red_server: Server, vm: vm_pb2.Vm) -> None:
    pause(red_server, vm)
    resume(red_server, vm)
    kinds = [
        each.kind for each in red_server.operations.ListOperations(operation_pb2.ListOperationsRequest()).operations
    ]
    assert kinds[:2] == [operation_pb2.OPERATION_KIND_RESUME_VM, operation_pb2.OPERATION_KIND_PAUSE_VM]

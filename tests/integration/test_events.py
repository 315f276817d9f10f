"""What happens to a real VM is told in one piece, though its servers are killed meanwhile."""

from harness import NewServer, Server
from ingle.v1 import event_pb2, event_pb2_grpc, guest_pb2, system_pb2, vm_pb2


def told(server: Server, after: int) -> list[event_pb2.Event]:
    stub = event_pb2_grpc.EventServiceStub(server.channel)
    request = event_pb2.WatchEventsRequest(after=after, no_follow=True, resource_kinds=[event_pb2.RESOURCE_KIND_VM])
    return [response.event for response in stub.WatchEvents(request, timeout=60) if response.HasField("event")]


def kinds(events: list[event_pb2.Event]) -> list[str]:
    return [event_pb2.EventKind.Name(event.kind).removeprefix("EVENT_KIND_") for event in events]


def test_a_life_over_killed_servers_is_told_whole_and_says_how_it_ended(new_server: NewServer) -> None:
    server = new_server()
    before = [0, *(event.cursor for event in told(server, 0))]  # of VMs that the image was prepared with
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name="told"))).vm
    events = told(server, before[-1])
    assert kinds(events) == ["VM_CREATED", "VM_STARTED", "VM_READY"]
    (use,) = server.system.GetDiskUsage(system_pb2.GetDiskUsageRequest(each_vm=True)).vms
    assert use.shared_bytes > use.allocated_bytes > 0, "the image is not copied"
    server.kill()
    server.start()
    assert server.run("told", "true")[0] == 0
    power_off = guest_pb2.ExecStart(vm=vm.id, argv=["poweroff"], detach=True)
    list(server.guest.Exec(iter([guest_pb2.ExecRequest(start=power_off)])))
    stub = event_pb2_grpc.EventServiceStub(server.channel)
    watching = stub.WatchEvents(event_pb2.WatchEventsRequest(after=events[-1].cursor, resource=vm.id), timeout=60)
    stopped = next(response.event for response in watching if response.HasField("event"))
    watching.cancel()
    assert (kinds([stopped]), stopped.stop_cause) == (["VM_STOPPED"], event_pb2.STOP_CAUSE_GUEST_POWERED_OFF)
    server.kill()
    server.start()
    server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id))
    server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id))
    server.kill()
    server.start()
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id))
    last = told(server, stopped.cursor)
    assert kinds(last) == ["VM_STARTED", "VM_READY", "VM_STOPPED", "VM_DELETED"]
    assert last[2].stop_cause == event_pb2.STOP_CAUSE_ASKED
    assert len({event.op_id for event in (*events, *last)}) == 4, "create, start, stop, delete"

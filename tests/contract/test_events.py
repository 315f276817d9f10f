"""Events over gRPC: of VMs whose engine is a stand-in, with servers that are killed."""

import asyncio
import re
import sys
from pathlib import Path

import grpc
import pytest

from contract.test_engines import create, delete
from harness import Server, refusal
from ingle.v1 import event_pb2, event_pb2_grpc, vm_pb2

TESTS = Path(__file__).parents[1]
_DOCUMENT = TESTS.parent / "docs/clients.md"
_LIFE = ["VM_CREATED", "VM_STARTED", "VM_READY", "VM_STOPPED", "VM_DELETED"]


def watch(server: Server, **fields: object) -> "grpc._CallIterator[event_pb2.WatchEventsResponse]":
    return watch_over(server.channel, **fields)


def watch_over(channel: grpc.Channel, **fields: object) -> "grpc._CallIterator[event_pb2.WatchEventsResponse]":
    request = event_pb2.WatchEventsRequest(**fields)  # type: ignore[arg-type]
    return event_pb2_grpc.EventServiceStub(channel).WatchEvents(request, timeout=60)


def told(server: Server, **fields: object) -> list[event_pb2.Event]:
    fields = {"after": 0} | fields
    responses = watch(server, no_follow=True, **fields)
    return [response.event for response in responses if response.HasField("event")]


def kind(event: event_pb2.Event) -> str:
    return event_pb2.EventKind.Name(event.kind).removeprefix("EVENT_KIND_")


def test_a_life_is_told_over_servers_that_are_killed(red_server: Server) -> None:
    made = create(red_server, "lasting", "red")
    cursor = told(red_server, resource=made.id)[-1].cursor
    red_server.kill()
    red_server.start()
    red_server.vms.StopVm(vm_pb2.StopVmRequest(vm=made.id))
    red_server.kill()
    red_server.start()
    delete(red_server, made.id)
    events = told(red_server, resource=made.id)
    assert [kind(event) for event in events] == _LIFE
    assert all(event.op_id.startswith("op-") for event in events)
    assert [event.name for event in events] == ["lasting"] * 5
    assert events[3].stop_cause == event_pb2.STOP_CAUSE_ASKED
    assert [kind(event) for event in told(red_server, after=cursor)] == [
        "SERVER_STARTED",
        "VM_STOPPED",
        "SERVER_STARTED",
        "VM_DELETED",
    ]


def test_a_watcher_hears_at_once_and_goes_on_with_the_next_server(red_server: Server) -> None:
    channel = grpc.insecure_channel(f"unix:{red_server.socket}")
    watching = watch_over(channel, resource_kinds=[event_pb2.RESOURCE_KIND_VM])
    cursor = next(watching).cursor
    made = create(red_server, "watched", "red", labels={"team": "web"})
    for expected in _LIFE[:3]:
        response = next(watching)
        assert (kind(response.event), dict(response.event.labels)) == (expected, {"team": "web"})
        assert response.cursor == response.event.cursor > cursor
        cursor = response.cursor
    red_server.stop()
    with pytest.raises(grpc.RpcError) as stopped:
        next(watching)
    assert refusal(stopped.value).reason == "SERVER_STOPPING"
    channel.close()
    red_server.start()
    watching = watch(red_server, after=cursor, labels=["team=web"])
    next(watching)
    delete(red_server, made.id)
    rest = [next(watching).event for _ in range(2)]
    watching.cancel()
    assert [(kind(event), event.stop_cause) for event in rest] == [
        ("VM_STOPPED", event_pb2.STOP_CAUSE_KILLED),
        ("VM_DELETED", event_pb2.STOP_CAUSE_UNSPECIFIED),
    ]


def test_images_and_kernels_are_told_with_their_names(red_server: Server) -> None:
    kinds = [event_pb2.EVENT_KIND_IMAGE_ADDED, event_pb2.EVENT_KIND_KERNEL_ADDED]
    found = told(red_server, kinds=kinds)
    assert [(kind(event), event.name, event.HasField("owner")) for event in found] == [
        ("IMAGE_ADDED", "tiny", False),
        ("KERNEL_ADDED", "made-up", False),
    ]


def test_what_can_not_be_is_refused_with_its_field(red_server: Server) -> None:
    for fields in ({"kinds": [9999]}, {"resource_kinds": [77]}, {"labels": ["a=1", "a=2"]}):
        with pytest.raises(grpc.RpcError) as refused:
            told(red_server, **fields)
        assert refusal(refused.value).reason == "INVALID_ARGUMENT"
    with pytest.raises(grpc.RpcError) as expired:
        told(red_server, after=10**9)
    assert refusal(expired.value).reason == "CURSOR_EXPIRED"
    oldest = int(refusal(expired.value).metadata["oldest_cursor"])
    assert told(red_server, after=oldest)


def test_many_who_watch_and_read_nothing_hold_up_nobody(red_server: Server) -> None:
    lazy = [watch(red_server, after=0) for _ in range(50)]
    try:
        made = create(red_server, "not-held-up", "red")
        delete(red_server, made.id)
        assert [kind(event) for event in told(red_server, resource=made.id)] == _LIFE
    finally:
        for each in lazy:
            each.cancel()


async def test_the_example_of_the_document_goes_on_over_a_restart(red_server: Server) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", _DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)
    (code,) = (example for example in examples if "WatchEvents" in example)
    env = {**red_server.env, "INGLE_SOCKET": str(red_server.socket), "PYTHONUNBUFFERED": "1"}
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=env, stdout=asyncio.subprocess.PIPE)
    assert client.stdout is not None
    try:
        made = await asyncio.to_thread(create, red_server, "example", "red")
        async with asyncio.timeout(60):
            while await client.stdout.readline() != b"EVENT_KIND_VM_READY example\n":
                pass
            await asyncio.to_thread(red_server.kill)
            await asyncio.to_thread(red_server.start)
            await asyncio.to_thread(delete, red_server, made.id)
            rest = [await client.stdout.readline() for _ in range(3)]
        assert rest == [
            b"EVENT_KIND_SERVER_STARTED \n",
            b"EVENT_KIND_VM_STOPPED example\n",
            b"EVENT_KIND_VM_DELETED example\n",
        ]
    finally:
        client.kill()
        await client.wait()

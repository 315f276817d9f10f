"""What changes something takes a whole id or a name, whichever the service: a call that is sent twice never meets
another thing whose id happens to begin so."""

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from harness import Server, refusal, running_server, server_directory
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.application import SERVICES
from ingle.api_server.model.caller import Caller
from ingle.api_server.model.snapshot import Snapshot
from ingle.api_server.model.vm import Acceleration, Image, Kernel, Vm, VmSettings, VmState
from ingle.v1 import event_pb2, guest_pb2, image_pb2, kernel_pb2, operation_pb2, snapshot_pb2, system_pb2, vm_pb2

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IMAGE = Image("a7" * 32, (), 1 << 20, NOW, "test")
KERNEL = Kernel("b7" * 32, (), "6.1", 1 << 20, (), NOW, "test")
VM = Vm(
    id="75aabbccddee",
    name="web",
    created_at=NOW,
    settings=VmSettings(
        image_id=IMAGE.id,
        image_name="base",
        kernel_id=KERNEL.id,
        kernel_name="mine",
        engine="qemu",
        acceleration=Acceleration.TCG,
        disk_backend="qcow2",
        vcpus=1,
        memory_bytes=1 << 28,
        disk_bytes=1 << 30,
    ),
    state=VmState.STOPPED,
    owner=os.getuid(),
)
ME = Caller(VM.owner, admin=True)
SNAPSHOT = Snapshot("c7aabbccddee", "before", VM.owner, NOW, VM.id, VM.name, VM.settings, memory=False)
PREFIXES = {"vm": VM.id[:2], "image": IMAGE.id[:12], "kernel": KERNEL.id[:12], "snapshot": SNAPSHOT.id[:2]}

# The only ones that change nothing.
LOOKS = {
    *("GetVm", "GetVmHealth", "PingVm", "GetVmStats", "StreamVmLogs", "GetImage", "GetKernel", "GetSnapshot"),
    *("ReadFile", "StatFile", "ListDirectory", "CopyOut", "ListSessions", "ListPorts"),
}
# What else a request needs to be worth a look at the VM.
FILLED: dict[str, Any] = {"path": "/x", "new_path": "/y", "session_id": "init", "argv": ["true"]}

METHODS = {
    method.name: method
    for file in (vm_pb2, guest_pb2, snapshot_pb2, image_pb2, kernel_pb2, operation_pb2, system_pb2, event_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


async def _record(server: Server) -> None:
    async with SqliteStore(server.state / "ingle.db") as store:
        await store.images.add(IMAGE, "base", ME)
        await store.kernels.add(KERNEL, "mine", ME)
        await store.vms.insert(VM, bytes(32))
        await store.snapshots.insert(SNAPSHOT)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with server_directory() as root, running_server(root) as server:
        server.system.Ping(system_pb2.PingRequest())
        server.stop()
        asyncio.run(_record(server))
        for library in ("images", "kernels"):
            for item in (IMAGE, KERNEL):
                (server.state / library / item.id).mkdir()
        yield server.start()


def requests(name: str) -> Iterator[tuple[str, Message]]:
    """One request for each reference that the method takes, with the beginning of an id in that place."""
    for kind, prefix in PREFIXES.items():
        request = GetMessageClass(METHODS[name].input_type)()
        for inner in ("", "start", "spec"):
            fields = request.DESCRIPTOR.fields_by_name
            if inner and (inner not in fields or fields[inner].message_type is None):
                continue
            place: Any = getattr(request, inner) if inner else request
            if kind in place.DESCRIPTOR.fields_by_name and not (name == "UpdateVm" and inner):
                _fill(place)
                setattr(place, kind, prefix)
                yield kind, request
                break


def _fill(message: Any) -> None:
    for name, value in FILLED.items():
        if name in message.DESCRIPTOR.fields_by_name:
            if isinstance(value, list):
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)
    if "update_mask" in message.DESCRIPTOR.fields_by_name:
        message.update_mask.paths.append("name")
        message.spec.name = "other"
    if message.DESCRIPTOR.name == "RestoreVmRequest":
        message.vm, message.snapshot = VM.name, SNAPSHOT.name
    if "unix_path" in message.DESCRIPTOR.fields_by_name:
        message.unix_path = "/x"
    if "size" in message.DESCRIPTOR.fields_by_name:
        message.size.columns = message.size.rows = 24


def ask(server: Server, name: str, request: Message) -> str:
    """The reason for which it was refused; empty when it wasn't."""
    method = METHODS[name]
    kind = ("stream" if method.client_streaming else "unary") + ("_stream" if method.server_streaming else "_unary")
    call = getattr(server.channel, kind)(
        f"/{method.containing_service.full_name}/{name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    try:
        answer = call(iter([request]) if method.client_streaming else request)
        if method.server_streaming:
            list(answer)
    except grpc.RpcError as error:
        return refusal(error).reason
    return ""


TAKING = [name for name in sorted(METHODS) if any(requests(name))]


def test_every_service_is_walked() -> None:
    assert {method.containing_service.full_name for method in METHODS.values()} == set(SERVICES)
    assert set(TAKING) > LOOKS
    assert len(TAKING) - len(LOOKS) >= 18


@pytest.mark.parametrize("name", [name for name in TAKING if name not in LOOKS])
def test_what_changes_something_refuses_the_beginning_of_an_id(server: Server, name: str) -> None:
    for kind, request in requests(name):
        assert ask(server, name, request) == f"{kind.upper()}_NOT_FOUND", request
    assert [vm.id for vm in server.list()] == [VM.id]


@pytest.mark.parametrize("name", sorted(LOOKS))
def test_what_only_looks_takes_the_beginning_of_an_id(server: Server, name: str) -> None:
    for kind, request in requests(name):
        assert ask(server, name, request) in {"", "WRONG_STATE"}, (kind, request)


def test_a_name_that_looks_like_an_id_is_refused(server: Server) -> None:
    renamed = vm_pb2.UpdateVmRequest(vm="web", spec=vm_pb2.VmSpec(name="0123456789ab"))
    renamed.update_mask.paths.append("name")
    created = vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name="0123456789ab", image="base", kernel="mine"))
    assert ask(server, "UpdateVm", renamed) == ask(server, "CreateVm", created) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("name", [name for name in TAKING if not name.endswith(("CreateVm", "WarmImage"))])
def test_a_reference_that_was_forgotten_is_no_name_of_something_missing(server: Server, name: str) -> None:
    for kind, request in requests(name):
        place: Any = request if kind in request.DESCRIPTOR.fields_by_name else request.start  # type: ignore[attr-defined]
        place.ClearField(kind)
        assert ask(server, name, request) == "INVALID_ARGUMENT"

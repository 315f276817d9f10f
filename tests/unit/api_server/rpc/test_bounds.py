"""Whatever field of whatever request says too much: it is named, and no servicer has seen the request."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from contract.requests_of_all_methods import METHODS
from harness import refusal
from ingle.api_server.gate import Callers, open_gate
from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.rpc.bounds import bound_of, check
from ingle.api_server.rpc.interceptors import CallInterceptor
from ingle.v1 import event_pb2, guest_pb2, vm_pb2

REQUESTS = {method.input_type.full_name: method.input_type for method in METHODS.values()}
LETTERS: Mapping[int, str | bytes] = {FieldDescriptor.TYPE_STRING: "x", FieldDescriptor.TYPE_BYTES: b"x"}

Fill = Callable[[Message, int], None]
"""Makes a message say so many more than it may: 0 is just what is allowed, 1 too much."""


def everything(kind: Descriptor) -> Iterator[tuple[str, Fill]]:
    """For each way to say too much: what is named then, and how it is done."""
    for field in kind.fields:
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            yield from _map(field)
        elif field.is_repeated:
            yield from _list(field)
        elif inner is not None:
            for path, fill in everything(inner):
                yield f"{field.name}.{path}", _inside(field.name, fill)
        elif field.type in LETTERS:
            yield field.name, _text(field)


def _text(field: FieldDescriptor) -> Fill:
    letter, most = LETTERS[field.type], bound_of(field).bytes
    return lambda message, more: setattr(message, field.name, letter * (most + more))


def _list(field: FieldDescriptor) -> Iterator[tuple[str, Fill]]:
    name, bound, inner = field.name, bound_of(field), field.message_type
    none: Any = GetMessageClass(inner)() if inner is not None else "" if field.type in LETTERS else 0
    yield name, lambda message, more: getattr(message, name).extend([none] * (bound.count + more))
    for path, fill in everything(inner) if inner is not None else ():
        yield f"{name}[0].{path}", _inside(name, fill)
    if field.type in LETTERS:
        yield f"{name}[0]", lambda message, more: getattr(message, name).append("x" * (bound.bytes + more))
    if (total := bound.total) is not None:
        texts = ["x" * bound.bytes] * (total // bound.bytes)
        yield name, lambda message, more: getattr(message, name).extend([*texts, *["x"] * more])


def _map(field: FieldDescriptor) -> Iterator[tuple[str, Fill]]:
    name, bound = field.name, bound_of(field)
    keys = [f"{number:05}" for number in range(bound.count + 1)]
    yield name, lambda message, more: getattr(message, name).update(dict.fromkeys(keys[: bound.count + more], ""))
    yield name, lambda message, more: getattr(message, name).update({"k" * (bound.bytes + more): ""})
    yield name, lambda message, more: getattr(message, name).update({"": "v" * (bound.bytes + more)})
    if (total := bound.total) is not None:
        values = dict.fromkeys(keys[: total // bound.bytes], "v" * (bound.bytes - len(keys[0])))
        yield name, lambda message, more: getattr(message, name).update({**values, "": "v" * more})


def _inside(name: str, fill: Fill) -> Fill:
    def fill_inner(message: Message, more: int) -> None:
        inner = getattr(message, name)
        if isinstance(inner, Message):
            inner.SetInParent()
        else:
            inner = inner.add()
        fill(inner, more)

    return fill_inner


WAYS = [
    pytest.param(kind, path, fill, id=f"{name}-{path}-{number}")
    for name, kind in REQUESTS.items()
    for number, (path, fill) in enumerate(everything(kind))
]


@pytest.mark.parametrize(("kind", "path", "fill"), WAYS)
def test_what_is_allowed_is_taken_and_one_more_is_named(kind: Descriptor, path: str, fill: Fill) -> None:
    allowed, too_much = GetMessageClass(kind)(), GetMessageClass(kind)()
    fill(allowed, 0)
    check(allowed, len(allowed.SerializeToString()))
    fill(too_much, 1)
    with pytest.raises(InvalidArgument) as refused:
        check(too_much, len(too_much.SerializeToString()))
    assert refused.value.field == path
    assert " at most " in refused.value.message


def test_every_text_list_and_map_of_every_request_is_among_them() -> None:
    said = {kind.full_name for kind in _all_kinds(REQUESTS.values())}
    bounded = {f"{kind.full_name}.{field.name}" for kind in _all_kinds(REQUESTS.values()) for field in kind.fields}
    assert {"ingle.v1.VmSpec", "ingle.v1.SessionProgram", "google.protobuf.FieldMask"} <= said
    assert {"ingle.v1.ListVmsRequest.labels", "ingle.v1.TcpTarget.host", "ingle.v1.ExecStart.argv"} <= bounded
    assert len(WAYS) > 150


def _all_kinds(kinds: Any) -> set[Descriptor]:
    found: set[Descriptor] = set()
    waiting = list(kinds)
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.add(kind)
            waiting += [field.message_type for field in kind.fields if field.message_type is not None]
    return found


def test_characters_count_as_the_bytes_that_they_take() -> None:
    check(vm_pb2.GetVmRequest(vm="é" * 512), 1028)
    with pytest.raises(InvalidArgument, match="1025 bytes"):
        check(vm_pb2.GetVmRequest(vm="é" * 512 + "x"), 1028)


MUCH = 4 * 1024 * 1024 - 64
HOSTILE: list[tuple[str, Message]] = [
    ("vm", vm_pb2.GetVmRequest(vm="x" * MUCH)),
    ("labels", vm_pb2.ListVmsRequest(labels=["k"] * 200_000)),
    ("labels", event_pb2.WatchEventsRequest(labels=["k=v"] * 200_000)),
    ("kinds", event_pb2.WatchEventsRequest(kinds=[event_pb2.EVENT_KIND_VM_CREATED] * 1_000_000)),
    ("start.argv", guest_pb2.ExecRequest(start=guest_pb2.ExecStart(vm="x", argv=[""] * 1_000_000))),
    ("start.limits", guest_pb2.ExecRequest(start=guest_pb2.ExecStart(limits=[guest_pb2.ResourceLimit()] * 500_000))),
    ("spec.env", vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(env={f"{number}": "" for number in range(200_000)}))),
]


@pytest.mark.parametrize(("path", "request_"), HOSTILE, ids=[path for path, _ in HOSTILE])
async def test_no_servicer_sees_a_request_that_says_too_much(tmp_path: Path, path: str, request_: Message) -> None:
    """Through a real server; that it is in time does not depend on a clock: nobody has looked at the request."""
    seen: list[bytes] = []
    async with _served(tmp_path, type(request_), seen) as call:
        await call(type(request_)())
        assert len(seen) == 1
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(request_)
    error = refusal(raised.value)
    assert (error.reason, error.message.partition(":")[0]) == ("INVALID_ARGUMENT", path)
    assert len(seen) == 1


class _served:  # noqa: N801 - it is used as a function
    """A server with one method that notes its requests, as one client."""

    def __init__(self, directory: Path, kind: type[Message], seen: list[Any]) -> None:
        self._directory, self._kind, self._seen = directory, kind, seen

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        async def noted(request: Message, context: object) -> bytes:
            self._seen.append(request)
            return b""

        return grpc.unary_unary_rpc_method_handler(noted, request_deserializer=self._kind.FromString)

    async def __aenter__(self) -> Callable[[Message], Awaitable[bytes]]:
        self._server = grpc.aio.server(interceptors=[CallInterceptor()])
        self._server.add_generic_rpc_handlers((self,))  # type: ignore[arg-type]
        self._server.add_insecure_port(f"unix:{self._directory}/grpc.sock")
        await self._server.start()
        self._gate = await open_gate(self._directory / "api.sock", self._directory / "grpc.sock", Callers(os.getuid()))
        self._channel = grpc.aio.insecure_channel(f"unix:{self._directory}/api.sock")
        method: Any = self._channel.unary_unary("/x.Y/Z", request_serializer=self._kind.SerializeToString)
        return lambda message: asyncio.wait_for(method(message), 30)

    async def __aexit__(self, *error: object) -> None:
        await self._channel.close()
        self._gate.close()
        await self._server.stop(0)

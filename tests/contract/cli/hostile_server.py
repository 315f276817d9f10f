"""A server that says the worst that text can say, in every field of every answer.

python -m contract.cli.hostile_server SOCKET
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from contract.surface_text import compiled_files

HOSTILE = "a\x1b]0;x\x07\x1b[2J\x9b5n\x7f\x00\x08\r\n\t\u202e\u2066\u200f\u00ad\u2028\u2029b"
"""Escape sequences by C0 and C1 controls, DEL, a new line, marks of direction, separators."""

PIECE = b"data\n"
"""What is bytes, and passed on as such."""

_DEEPEST = 6


def filled(kind: Descriptor, enum_index: int, chosen: str = "", depth: int = 0) -> Any:
    """A message whose every field is set; of a oneof `chosen`, or the first."""
    message = message_factory.GetMessageClass(kind)()
    if kind.full_name in {"google.protobuf.Timestamp", "google.protobuf.Duration"}:
        message.seconds = 1_700_000_000 if kind.name == "Timestamp" else 1  # type: ignore[attr-defined]
        return message
    for field in kind.fields:
        choices = [each.name for each in field.containing_oneof.fields] if field.containing_oneof else []
        if len(choices) > 1 and field.name != (chosen if chosen in choices else choices[0]):
            continue
        _fill(message, field, enum_index, depth)
    return message


def _fill(message: Message, field: FieldDescriptor, enum_index: int, depth: int) -> None:
    if field.message_type is not None and depth == _DEEPEST:
        return
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(message, field.name)[HOSTILE] = HOSTILE
    elif field.message_type is not None:
        value = filled(field.message_type, enum_index, depth=depth + 1)
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            getattr(message, field.name).CopyFrom(value)
    else:
        value = _scalar(field, enum_index)
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)


def _scalar(field: FieldDescriptor, enum_index: int) -> object:
    if field.name == "next_page_token":
        return ""
    if field.enum_type is not None:
        return field.enum_type.values[min(enum_index, len(field.enum_type.values) - 1)].number
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return HOSTILE if field.type == FieldDescriptor.TYPE_STRING else PIECE
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
    return 1


def answers(kind: Descriptor, enum_index: int) -> Iterator[Message]:
    """One for each field of its oneof, in order; one if it has none."""
    choices = [field.name for oneof in kind.oneofs if len(oneof.fields) > 1 for field in oneof.fields]
    for chosen in choices or [""]:
        yield filled(kind, enum_index, chosen)


class Handlers(grpc.GenericRpcHandler):
    """Every method there is. With `refuse` all of them fail."""

    def __init__(self) -> None:
        self.enum_index = 1
        self.refuse = False

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        service, name = details.method.strip("/").split("/")
        method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
        request_type = message_factory.GetMessageClass(method.input_type)

        async def answer(request: object, context: Any) -> AsyncIterator[Message]:
            if self.refuse:
                await _refuse(context)
            for message in answers(method.output_type, self.enum_index):
                yield message

        async def answer_once(request: object, context: Any) -> Message:
            async for message in answer(request, context):
                return message
            raise AssertionError

        maker = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[method.client_streaming, method.server_streaming]
        return maker(
            answer if method.server_streaming else answer_once,
            request_deserializer=request_type.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


async def _refuse(context: Any) -> None:
    text = HOSTILE.replace("\x00", "")
    info = ErrorInfo(reason="WRONG_STATE", domain="ingle", metadata={"op_id": text, "remedy": text})
    detail = AnyMessage()
    detail.Pack(info)
    code = grpc.StatusCode.FAILED_PRECONDITION
    status = Status(code=code.value[0], message=text, details=[detail])
    await context.abort(code, text, (("grpc-status-details-bin", status.SerializeToString()),))


async def _serve(path: str) -> None:
    """Each line on stdin, "INDEX" or "refuse", says how to answer from now on."""
    server, handlers = grpc.aio.server(), Handlers()
    server.add_generic_rpc_handlers((handlers,))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    print("ready", flush=True)  # noqa: T201 - who started it waits for this
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        handlers.refuse = line == "refuse"
        handlers.enum_index = 1 if handlers.refuse else int(line)
        print("ready", flush=True)  # noqa: T201
    await server.stop(None)


if __name__ == "__main__":
    compiled_files()  # loads what there is
    asyncio.run(_serve(sys.argv[1]))

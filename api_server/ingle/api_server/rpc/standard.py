"""What tools that know nothing of ours ask every gRPC server: grpc.health.v1, and reflection in both versions."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import TypeAlias

import grpc
from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"

REFLECTION = "grpc.reflection.v1.ServerReflection"
SERVICES = (health.SERVICE_NAME, REFLECTION, reflection.SERVICE_NAME)

_ALPHA, _STABLE = "grpc.reflection.v1alpha", "grpc.reflection.v1"


class Health(health_pb2_grpc.HealthServicer):
    """All services serve, until the server stops."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = ("", *services)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Nothing serves any more: whoever watches is told so, and let go."""
        self._stopping.set()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:200]!r}")
        return self._answer()

    async def List(self, request: object, context: Context) -> object:
        response = health_pb2.HealthListResponse  # type: ignore[attr-defined] # its stubs are older than it is
        return response(statuses=dict.fromkeys(self._services, self._answer()))

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        if request.service in self._services:
            yield self._answer()
        else:
            yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        if not self._stopping.is_set():
            await self._stopping.wait()
            yield self._answer()

    def _answer(self) -> health_pb2.HealthCheckResponse:
        serving = health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse(
            status=health_pb2.HealthCheckResponse.NOT_SERVING if self._stopping.is_set() else serving
        )


def add_health(services: Sequence[str], server: grpc.aio.Server) -> Health:
    """Register it for those services and for the server as a whole."""
    healthy = Health(services)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    return healthy


class _Symbols:
    """The default pool as reflection asks it. A method is a symbol, too, which the pool itself does not find, and tools
    write an enum's value below the enum's name."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> object:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """Raises KeyError."""
        with contextlib.suppress(KeyError):
            return self._pool.FindFileContainingSymbol(symbol)
        parent, _, name = symbol.rpartition(".")
        with contextlib.suppress(KeyError):
            if name in self._pool.FindServiceByName(parent).methods_by_name:
                return self._pool.FindFileContainingSymbol(parent)
        if name in self._pool.FindEnumTypeByName(parent).values_by_name:
            return self._pool.FindFileContainingSymbol(parent)
        raise KeyError(symbol)


def add_reflection(services: Sequence[str], server: grpc.aio.Server) -> None:
    """Register it by its name of today and by that of old: the messages are the same."""
    descriptor_pool.Default().Add(_stable_reflection())
    names = (*services, *SERVICES)
    servicer = reflection.aio.ReflectionServicer(names, _Symbols())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(REFLECTION, {"ServerReflectionInfo": method})
    server.add_generic_rpc_handlers((handler,))


def _stable_reflection() -> FileDescriptorProto:
    """grpc/reflection/v1/reflection.proto, which the library does not have: but for the names it is that of v1alpha."""
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    text = json.dumps(json_format.MessageToDict(file)).replace(_ALPHA, _STABLE)
    stable: FileDescriptorProto = json_format.Parse(text, FileDescriptorProto())
    stable.name = f"{_STABLE.replace('.', '/')}/reflection.proto"
    return stable

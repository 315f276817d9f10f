"""The running server registers the contract, all of it and nothing else."""

from itertools import chain

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from contract.surface_text import compiled_files, render
from harness import Server, refusal
from ingle.api_server.rpc import standard
from ingle.api_server.rpc.calls import ENDLESS

CONTRACT = [file for file in compiled_files() if file.package == "ingle.v1"]
STANDARD = set(standard.SERVICES)
METHODS = [
    pytest.param(f"/{file.package}.{service.name}/{method.name}", method, id=f"{service.name}.{method.name}")
    for file in CONTRACT
    for service in file.service
    for method in service.method
    # Works too well to be called on a server that others still need; test_calls.py has one for it.
    if method.name != "Shutdown"
]


def test_services_are_those_of_the_contract(server: Server) -> None:
    services = {f"{file.package}.{service.name}" for file in CONTRACT for service in file.service}
    assert set(_reflection(server).get_services()) == services | STANDARD


def test_descriptors_are_those_of_the_contract(server: Server) -> None:
    assert render(_files(server)) == render(CONTRACT)


@pytest.mark.parametrize(("path", "method"), METHODS)
def test_method_is_implemented(server: Server, path: str, method: MethodDescriptorProto) -> None:
    # What a method gets that is registered but not written, or not even registered.
    assert _refusal(server, path, _harmless(method)) not in {"INTERNAL", "UNKNOWN_METHOD"}


def test_methods_that_a_stopping_server_does_not_wait_for_are_of_the_contract() -> None:
    methods = {
        f"/{file.package}.{service.name}/{m.name}"
        for file in CONTRACT
        for service in file.service
        for m in service.method
    }
    assert methods >= {method for method in ENDLESS if method.startswith("/ingle.")}


def _refusal(server: Server, path: str, request: Message) -> str:
    """The reason of the call's error; empty when it succeeds. On the wire all kinds of calls begin alike."""
    call: grpc.StreamStreamMultiCallable[bytes, bytes] = server.channel.stream_stream(path)
    try:
        for _ in call(iter([request.SerializeToString()])):
            pass
    except grpc.RpcError as error:
        return refusal(error).reason
    return ""


def _harmless(method: MethodDescriptorProto) -> Message:
    """A request that changes nothing: about nothing, and for a VM that can't be."""
    descriptor = Default().FindMessageTypeByName(method.input_type.lstrip("."))
    request = GetMessageClass(descriptor)()
    if "spec" in descriptor.fields_by_name:
        request.spec.vcpus = 0  # type: ignore[attr-defined]
    if "no_follow" in descriptor.fields_by_name:
        request.no_follow = True  # type: ignore[attr-defined]
    return request


def _reflection(server: Server) -> ProtoReflectionDescriptorDatabase:
    return ProtoReflectionDescriptorDatabase(server.channel)


def _files(server: Server) -> list[FileDescriptorProto]:
    """The contract's files as the server describes them, with those they import."""
    database = _reflection(server)
    services = [name for name in database.get_services() if name not in STANDARD]
    files = {file.name: file for file in map(database.FindFileContainingSymbol, services)}
    for name in set(chain.from_iterable(file.dependency for file in files.values())) - files.keys():
        files[name] = database.FindFileByName(name)
    return [file for file in files.values() if file.package == "ingle.v1"]

"""What clients in other languages need: pings, headers at once, small errors, standard services, a polite goodbye.

Seen from below, as an HTTP/2 client that keeps every frame."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import hpack
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from harness import Server, refused, running_server, server_directory
from ingle.v1 import operation_pb2, system_pb2, vm_pb2

_SECONDS = 30
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Wire:
    """A connection, frame by frame. Answers settings and pings, as every client does."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_SECONDS)
        self._socket.connect(str(server.socket))
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._socket.sendall(_PREFACE + SettingsFrame(0).serialize())

    def send(self, frame: Frame) -> None:
        self._socket.sendall(frame.serialize())

    def call(self, stream: int, path: str) -> None:
        """Begin a call, and say nothing."""
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        self.send(HeadersFrame(stream, self._encoder.encode(headers), flags=["END_HEADERS"]))

    def say(self, stream: int, message: bytes) -> None:
        self.send(DataFrame(stream, struct.pack(">BI", 0, len(message)) + message))

    def frames(self) -> Iterator[Frame]:
        """Those that come, to the end of the connection."""
        while (head := self._exactly(9)) is not None:
            frame, length = Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(self._exactly(length) or b""))
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                self.send(SettingsFrame(0, flags=["ACK"]))
            if isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                self.send(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]))
            yield frame

    def headers(self) -> dict[str, str]:
        """The next headers, of whichever stream."""
        for frame in self.frames():
            if isinstance(frame, HeadersFrame):
                return {str(name): str(value) for name, value in self._decoder.decode(frame.data)}
        raise AssertionError("the connection ended")

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            try:
                piece = self._socket.recv(size - len(data))
            except ConnectionError:
                return None
            if not piece:
                return None
            data += piece
        return data


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    wire = Wire(server)
    yield wire
    wire.close()


@pytest.mark.parametrize("with_a_call", [False, True])
def test_pings_of_clients_are_welcome(wire: Wire, with_a_call: bool) -> None:
    if with_a_call:
        wire.call(1, "/grpc.health.v1.Health/Watch")
        wire.say(1, b"")
    for number in range(20):
        wire.send(PingFrame(0, opaque_data=number.to_bytes(8, "big")))
    seen = set()
    for frame in wire.frames():
        assert not isinstance(frame, GoAwayFrame)
        if isinstance(frame, PingFrame) and "ACK" in frame.flags:
            seen.add(int.from_bytes(frame.opaque_data, "big"))
        if len(seen) == 20:
            break


@pytest.mark.parametrize(
    "path",
    [
        "/ingle.v1.GuestService/Exec",
        "/ingle.v1.GuestService/AttachSession",
        "/ingle.v1.GuestService/Forward",
        "/ingle.v1.GuestService/WriteFile",
        "/ingle.v1.GuestService/CopyIn",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ],
)
def test_a_stream_is_answered_with_headers_before_anything_was_said(wire: Wire, path: str) -> None:
    wire.call(1, path)
    headers = wire.headers()
    assert headers[":status"] == "200"
    assert headers["ingle-op-id"].startswith("op-")


def test_an_unknown_method_is_refused_before_anything_was_said(wire: Wire) -> None:
    wire.call(1, "/ingle.v1.GuestService/NoSuchStream")
    headers = wire.headers()
    while "grpc-status" not in headers:
        headers |= wire.headers()
    assert headers["grpc-status"] == str(grpc.StatusCode.UNIMPLEMENTED.value[0])


def test_the_op_id_of_a_call_is_the_same_in_its_headers_and_in_its_error(server: Server) -> None:
    call = server.operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id="op-none"))
    first = dict(call.initial_metadata())["ingle-op-id"]
    assert refused(list, call).op_id == first
    _, ping = server.system.Ping.with_call(system_pb2.PingRequest())
    assert str(dict(ping.initial_metadata())["ingle-op-id"]).startswith("op-")


def test_an_error_that_quotes_much_fits_into_small_headers(server: Server, wire: Wire) -> None:
    wire.call(1, "/ingle.v1.VmService/GetVm")
    wire.send(DataFrame(1, _framed(vm_pb2.GetVmRequest(vm="字" * 600).SerializeToString()), flags=["END_STREAM"]))
    headers = wire.headers()
    while "grpc-status" not in headers:
        headers = wire.headers()
    size = sum(len(name) + len(value) + 32 for name, value in headers.items())  # as RFC 9113, 6.5.2 counts
    assert size < 5000
    assert "grpc-status-details-bin" in headers


def _framed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def test_an_oversized_message_in_a_stream_carries_the_reason(server: Server) -> None:
    unary = refused(server.vms.GetVm, vm_pb2.GetVmRequest(vm="x" * (20 * 1024 * 1024)))
    assert (unary.code, unary.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    upload: grpc.StreamUnaryMultiCallable[bytes, bytes] = server.channel.stream_unary(
        "/ingle.v1.GuestService/WriteFile"
    )
    assert refused(upload, iter([bytes(20 * 1024 * 1024)])).reason == "MESSAGE_TOO_LARGE"


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_itself_and_us(server: Server, version: str) -> None:
    ask = server.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    symbols = ["ingle.v1.VmService", f"grpc.reflection.{version}.ServerReflection"]
    requests = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol) for symbol in symbols]
    answers = list(ask(iter([reflection_pb2.ServerReflectionRequest(list_services=""), *requests])))
    services = {service.name for service in answers[0].list_services_response.service}
    assert services >= {*symbols, "grpc.health.v1.Health"}
    files = [
        FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])
        for answer in answers[1:]
    ]
    assert [file.package for file in files] == ["ingle.v1", f"grpc.reflection.{version}"]


@pytest.mark.parametrize(
    ("symbol", "known"),
    [
        ("ingle.v1.GuestService.Exec", True),
        ("ingle.v1.GuestService.NoSuch", False),
        ("ingle.v1.FileType.FILE_TYPE_FIFO", True),
        ("ingle.v1.FileType.NO_SUCH", False),
        ("ingle.v1.GuestService.Exec.", False),
        ("", False),
        (".", False),
        ("nothing", False),
    ],
)
def test_reflection_finds_what_is_inside_of_services_and_enums(server: Server, symbol: str, known: bool) -> None:
    ask = server.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = ask(iter([reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)]))
    files = [FileDescriptorProto.FromString(file) for file in answer.file_descriptor_response.file_descriptor_proto]
    assert ("ingle/v1/guest.proto" in {file.name for file in files}) == known
    assert (answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]) != known


def test_health_lists_what_it_can_be_asked_about(server: Server) -> None:
    ask: Any = server.channel.unary_unary(
        "/grpc.health.v1.Health/List",
        response_deserializer=health_pb2.HealthListResponse.FromString,  # type: ignore[attr-defined] # see standard.py
    )
    statuses = ask(b"").statuses
    assert {"", "ingle.v1.VmService"} <= set(statuses)
    assert {answer.status for answer in statuses.values()} == {health_pb2.HealthCheckResponse.SERVING}


@contextmanager
def _stopping(server: Server) -> Iterator[None]:
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    try:
        yield
    finally:
        stopper.join()


def test_a_stop_is_told_to_health_watchers_and_ends_connections_without_an_error() -> None:
    with server_directory() as root, running_server(root) as server:
        idle, watching, reflecting = Wire(server), Wire(server), Wire(server)
        watching.call(1, "/grpc.health.v1.Health/Watch")
        watching.say(1, b"")
        reflecting.call(1, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        for wire in (watching, reflecting):
            wire.headers()
        with _stopping(server):
            wires = {"idle": idle, "watching": watching, "reflecting": reflecting}
            ends = {name: list(wire.frames()) for name, wire in wires.items()}
        for wire in (idle, watching, reflecting):
            wire.close()
    for name, frames in ends.items():
        codes = {frame.error_code for frame in frames if isinstance(frame, GoAwayFrame)}
        assert codes == {0}, name
        assert not [frame for frame in frames if isinstance(frame, RstStreamFrame) and frame.error_code], name
    said = b"".join(frame.data for frame in ends["watching"] if isinstance(frame, DataFrame))
    not_serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
    assert said.endswith(_framed(not_serving.SerializeToString()))

"""The part of GuestService that is about the guest's network: connections to its servers, and which there are."""

from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.guest import Input, InputEnd, Said
from ingle.api_server.model.guest_network import (
    Connected,
    ForwardEvent,
    ForwardSpec,
    GuestPort,
    GuestSocket,
    ListeningPort,
    PeerEnded,
    Received,
)
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.rpc import who
from ingle.api_server.rpc.convert import PROTOCOLS, seconds_of
from ingle.api_server.rpc.guest.conversation import answers, not_allowed, opening
from ingle.v1 import guest_pb2, guest_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"
Requests = AsyncIterator[guest_pb2.ForwardRequest]

_LARGEST_PORT = 65535
_LONGEST_HOST = 253  # a DNS name
_LONGEST_PATH = 107  # a sockaddr_un
_CONNECT_SECONDS = 10.0
_LONGEST_CONNECT_SECONDS = 300.0


class NetworkMethods(guest_pb2_grpc.GuestServiceServicer):
    """Servers in guests."""

    _guests: UseGuest

    async def Forward(self, request_iterator: Requests, context: Context) -> AsyncIterator[guest_pb2.ForwardResponse]:
        start = (await opening(request_iterator, "a forward")).start
        spec, vm = _spec(start), who.reference(context, start.vm)
        events = self._guests.converse(vm, lambda channel, _: channel.forward(spec), _said(request_iterator))
        async for answer in answers(events, _event):
            yield answer

    async def ListPorts(self, request: guest_pb2.ListPortsRequest, context: Context) -> guest_pb2.ListPortsResponse:
        async with self._guests.look(who.reference(context, request.vm)) as channel:
            found = await channel.list_ports()
        return guest_pb2.ListPortsResponse(ports=map(_port, found.ports), truncated=found.truncated)


async def _said(requests: Requests) -> AsyncIterator[Said]:
    """What the caller sends to the server. The end of the messages is not the end of what is sent: that looks the same
    when a caller leaves."""
    after = "start"
    async for request in requests:
        kind = request.WhichOneof("message")
        if after == "eof" or kind not in ("data", "eof"):
            raise not_allowed(kind, after)
        if kind == "eof":
            after = "eof"
            yield InputEnd()
        else:
            yield Input(request.data)


def _spec(start: guest_pb2.ForwardStart) -> ForwardSpec:
    timeout = _CONNECT_SECONDS
    if start.HasField("connect_timeout"):
        timeout = seconds_of(start.connect_timeout, "connect_timeout", _LONGEST_CONNECT_SECONDS)
    return ForwardSpec(_target(start), timeout)


def _target(start: guest_pb2.ForwardStart) -> GuestPort | GuestSocket:
    match start.WhichOneof("target"):
        case "tcp":
            host, port = start.tcp.host, start.tcp.port
            if not 1 <= port <= _LARGEST_PORT:
                raise InvalidArgument(f"port {port}: 1 to {_LARGEST_PORT} is allowed", field="tcp.port")
            if len(host) > _LONGEST_HOST or not host.isprintable() or " " in host:
                raise InvalidArgument(
                    f"host {host[:_LONGEST_HOST]!r} is neither a name nor an address", field="tcp.host"
                )
            return GuestPort(port, host)
        case "unix_path":
            path = start.unix_path
            if not path.startswith("/") or "\0" in path or len(path.encode()) > _LONGEST_PATH:
                raise InvalidArgument(
                    f"unix_path {path!r}: an absolute path of at most {_LONGEST_PATH} bytes is allowed",
                    field="unix_path",
                )
            return GuestSocket(path)
    raise InvalidArgument(
        "a forward needs a target: a TCP port, or the path of a unix socket in the guest", field="target"
    )


def _event(event: ForwardEvent) -> guest_pb2.ForwardResponse:
    match event:
        case Received(data):
            return guest_pb2.ForwardResponse(data=data)
        case Connected(address):
            return guest_pb2.ForwardResponse(connected=guest_pb2.ForwardConnected(address=address))
        case PeerEnded():
            return guest_pb2.ForwardResponse(eof=guest_pb2.ForwardEof())


def _port(value: ListeningPort) -> guest_pb2.ListeningPort:
    return guest_pb2.ListeningPort(
        protocol=PROTOCOLS[value.protocol],
        address=value.address,
        port=value.port,
        pid=value.pid,
        process=value.process,
        command=value.command,
        uid=value.uid,
        user=value.user,
    )

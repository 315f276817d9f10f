"""The part of GuestService that is about the guest's network: connections to its servers, and which there are."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import TypeAlias

import grpc

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.guest_network import (
    Connected,
    ForwardEvent,
    ForwardSpec,
    GuestPort,
    GuestSocket,
    ListeningPort,
    PeerEnded,
    PortProtocol,
    Received,
)
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.ports.guest import Forwarding
from ingle.api_server.ports.store import Store
from ingle.api_server.rpc.conversation import both_ways
from ingle.api_server.rpc.convert import seconds_of
from ingle.v1 import guest_pb2, guest_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"
Requests = AsyncIterator[guest_pb2.ForwardRequest]

_LARGEST_DATA = 1024 * 1024
_LARGEST_PORT = 65535
_LONGEST_HOST = 253  # a DNS name
_LONGEST_PATH = 107  # a sockaddr_un
_CONNECT_SECONDS = 10.0
_LONGEST_CONNECT_SECONDS = 300.0

_PROTOCOLS: Mapping[PortProtocol, guest_pb2.PortProtocol.ValueType] = {
    protocol: guest_pb2.PortProtocol.Value(f"PORT_PROTOCOL_{protocol.name}") for protocol in PortProtocol
}


class ForwardCalls(guest_pb2_grpc.GuestServiceServicer):
    """Servers in guests."""

    def __init__(self, store: Store, fleet: Fleet) -> None:
        self._store = store
        self._fleet = fleet

    async def Forward(self, request_iterator: Requests, context: Context) -> AsyncIterator[guest_pb2.ForwardResponse]:
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("message") != "start":
            raise InvalidArgument("the first message of a forward must be `start`")
        spec = _spec(first.start)
        vm = await self._store.vm(first.start.vm)
        async with self._fleet.conversation(vm) as channel, channel.forward(spec) as forwarding:
            carry = _carry(request_iterator, forwarding)
            async with aclosing(both_ways(carry, forwarding.leave, forwarding.events())) as events:
                async for event in events:
                    yield _event(event)

    async def ListPorts(self, request: guest_pb2.ListPortsRequest, context: Context) -> guest_pb2.ListPortsResponse:
        found = await self._fleet.channel(await self._store.find_vm(request.vm)).list_ports()
        return guest_pb2.ListPortsResponse(ports=map(_port, found.ports), truncated=found.truncated)


async def _carry(requests: Requests, forwarding: Forwarding) -> None:
    """Carry what the caller sends, at the pace of the server in the guest. The end of the messages is not the end of
    what is sent: that looks the same when a caller leaves."""
    ended = False
    async for request in requests:
        kind = request.WhichOneof("message")
        if ended or kind not in ("data", "eof"):
            after = "eof" if ended else "start"
            raise InvalidArgument(f"message {kind or 'without content'} is not allowed after {after}")
        if kind == "eof":
            ended = True
            await forwarding.close_writing()
            continue
        if len(request.data) > _LARGEST_DATA:
            raise InvalidArgument(f"{len(request.data)} bytes of data at once; {_LARGEST_DATA} is allowed")
        await forwarding.write(request.data)


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
                raise InvalidArgument(f"port {port}: 1 to {_LARGEST_PORT} is allowed")
            if len(host) > _LONGEST_HOST or not host.isprintable() or " " in host:
                raise InvalidArgument(f"host {host[:_LONGEST_HOST]!r} is neither a name nor an address")
            return GuestPort(port, host)
        case "unix_path":
            path = start.unix_path
            if not path.startswith("/") or "\0" in path or len(path.encode()) > _LONGEST_PATH:
                raise InvalidArgument(
                    f"unix_path {path!r}: an absolute path of at most {_LONGEST_PATH} bytes is allowed"
                )
            return GuestSocket(path)
    raise InvalidArgument("a forward needs a target: a TCP port, or the path of a unix socket in the guest")


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
        protocol=_PROTOCOLS[value.protocol],
        address=value.address,
        port=value.port,
        pid=value.pid,
        process=value.process,
        command=value.command,
        uid=value.uid,
        user=value.user,
    )

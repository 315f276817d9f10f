"""Connections and ports: agent messages and the domain."""

import ipaddress
import math

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest.messages import in_turns, nonsense, parse, printable
from ingle.api_server.model.guest_network import (
    Connected,
    ForwardSpec,
    GuestPort,
    GuestSocket,
    ListeningPort,
    ListeningPorts,
)
from ingle.api_server.model.network import Protocol

_MOST_PORTS = 1000
_LARGEST_PORT = 65535
_LONGEST_COMMAND = 512  # characters and words, since an agent tells half a kilobyte of a command line

_PROTOCOLS = {
    agent_pb2.PORT_PROTOCOL_TCP: Protocol.TCP,
    agent_pb2.PORT_PROTOCOL_UDP: Protocol.UDP,
}


def forward_request(spec: ForwardSpec) -> agent_pb2.Request:
    """A connection as the agent wants it."""
    request = agent_pb2.ForwardRequest(timeout_milliseconds=max(1, math.ceil(spec.timeout_seconds * 1000)))
    match spec.target:
        case GuestPort(port, host):
            request.tcp.CopyFrom(agent_pb2.TcpTarget(host=host, port=port))
        case GuestSocket(path):
            request.unix_path = path
    return agent_pb2.Request(forward=request)


def connected(payload: bytes) -> Connected:
    """The first answer of a forward."""
    return Connected(printable(parse(agent_pb2.ForwardConnected, payload).address))


async def listening_ports(message: agent_pb2.ListPortsResponse) -> ListeningPorts:
    """All ports. Raises GuestError(GUEST_PROTOCOL) for what no kernel has."""
    if len(message.ports) > _MOST_PORTS:
        raise nonsense(f"{len(message.ports)} ports; at most {_MOST_PORTS} are allowed")
    return ListeningPorts(tuple(await in_turns(_listening_port, message.ports)), message.truncated)


def _listening_port(message: agent_pb2.ListeningPort) -> ListeningPort:
    protocol = _PROTOCOLS.get(message.protocol)
    try:
        address = str(ipaddress.ip_address(message.address))
    except ValueError:
        address = ""
    if protocol is None or not address or message.port > _LARGEST_PORT:
        raise nonsense(f"protocol {message.protocol}, address {printable(message.address)!r}, port {message.port}")
    if max(len(message.command), sum(map(len, message.command))) > _LONGEST_COMMAND:
        raise nonsense(f"a command line of {len(message.command)} words, more than {_LONGEST_COMMAND} characters")
    return ListeningPort(
        protocol=protocol,
        address=address,
        port=message.port,
        pid=message.pid,
        process=printable(message.process),
        command=tuple(map(printable, message.command)),
        uid=message.uid,
        user=printable(message.user),
    )

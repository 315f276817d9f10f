"""Numbers a guest may send that nobody after us could show."""

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import messages, network_messages
from ingle.api_server.model.errors import GuestError, Reason


def test_an_uptime_that_no_duration_holds_is_nonsense() -> None:
    with pytest.raises(GuestError) as refused:
        messages.stats(agent_pb2.StatsResponse(uptime_milliseconds=2**64 - 1))
    assert refused.value.reason is Reason.GUEST_PROTOCOL


@pytest.mark.parametrize(
    "port",
    [
        agent_pb2.ListeningPort(),
        agent_pb2.ListeningPort(protocol=agent_pb2.PORT_PROTOCOL_TCP, address="::", port=65536),
        agent_pb2.ListeningPort(protocol=agent_pb2.PORT_PROTOCOL_TCP, address="localhost", port=80),
        agent_pb2.ListeningPort(protocol=agent_pb2.PORT_PROTOCOL_TCP, address="::", port=80, command=["x"] * 513),
        agent_pb2.ListeningPort(protocol=9, address="::", port=80),  # type: ignore[arg-type] # that is the point
    ],
)
def test_a_port_that_no_kernel_has_is_nonsense(port: agent_pb2.ListeningPort) -> None:
    with pytest.raises(GuestError) as refused:
        network_messages.listening_ports(agent_pb2.ListPortsResponse(ports=[port]))
    assert refused.value.reason is Reason.GUEST_PROTOCOL


def test_more_ports_and_interfaces_than_agreed_are_nonsense() -> None:
    port = agent_pb2.ListeningPort(protocol=agent_pb2.PORT_PROTOCOL_UDP, address="::1", port=53)
    assert len(network_messages.listening_ports(agent_pb2.ListPortsResponse(ports=[port] * 1000)).ports) == 1000
    with pytest.raises(GuestError, match="1001 ports"):
        network_messages.listening_ports(agent_pb2.ListPortsResponse(ports=[port] * 1001))
    with pytest.raises(GuestError, match="257 network interfaces"):
        messages.stats(agent_pb2.StatsResponse(interfaces=[agent_pb2.InterfaceStats()] * 257))


def test_what_a_process_calls_itself_cannot_drive_a_terminal() -> None:
    port = agent_pb2.ListeningPort(
        protocol=agent_pb2.PORT_PROTOCOL_TCP, address="::", process="\x1b[2J", command=["a\nb", "\x07"], user="\x9b1m"
    )
    (found,) = network_messages.listening_ports(agent_pb2.ListPortsResponse(ports=[port])).ports
    assert (found.process, found.command, found.user) == (" [2J", ("a b", " "), " 1m")


def test_an_idleness_that_no_duration_holds_is_nonsense() -> None:
    with pytest.raises(GuestError):
        messages.activity(agent_pb2.ActivityResponse(idle_milliseconds=2**64 - 1))

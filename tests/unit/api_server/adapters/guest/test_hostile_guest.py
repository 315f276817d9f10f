"""What a guest may send that nobody after us could show."""

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import file_messages, messages, network_messages, session_messages
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
async def test_a_port_that_no_kernel_has_is_nonsense(port: agent_pb2.ListeningPort) -> None:
    with pytest.raises(GuestError) as refused:
        await network_messages.listening_ports(agent_pb2.ListPortsResponse(ports=[port]))
    assert refused.value.reason is Reason.GUEST_PROTOCOL


async def test_more_ports_and_interfaces_than_agreed_are_nonsense() -> None:
    port = agent_pb2.ListeningPort(protocol=agent_pb2.PORT_PROTOCOL_UDP, address="::1", port=53)
    assert len((await network_messages.listening_ports(agent_pb2.ListPortsResponse(ports=[port] * 1000))).ports) == 1000
    with pytest.raises(GuestError, match="1001 ports"):
        await network_messages.listening_ports(agent_pb2.ListPortsResponse(ports=[port] * 1001))
    with pytest.raises(GuestError, match="257 network interfaces"):
        messages.stats(agent_pb2.StatsResponse(interfaces=[agent_pb2.InterfaceStats()] * 257))


async def test_what_a_process_calls_itself_cannot_drive_a_terminal() -> None:
    port = agent_pb2.ListeningPort(
        protocol=agent_pb2.PORT_PROTOCOL_TCP, address="::", process="\x1b[2J", command=["a\nb", "\x07"], user="\x9b1m"
    )
    (found,) = (await network_messages.listening_ports(agent_pb2.ListPortsResponse(ports=[port]))).ports
    assert (found.process, found.command, found.user) == (" [2J", ("a b", " "), " 1m")


def test_an_idleness_that_no_duration_holds_is_nonsense() -> None:
    with pytest.raises(GuestError):
        messages.activity(agent_pb2.ActivityResponse(idle_milliseconds=2**64 - 1))


SIZE = agent_pb2.TerminalSize(rows=24, columns=80)


@pytest.mark.parametrize(
    "session",
    [
        agent_pb2.Session(id="init", size=SIZE, age_milliseconds=2**64 - 1),
        agent_pb2.Session(id="init", size=SIZE, idle_milliseconds=2**64 - 1),
        agent_pb2.Session(id="init", size=SIZE, argv=["x"] * 1025),
        agent_pb2.Session(id="init", size=SIZE, argv=["x" * 1025]),
    ],
)
def test_a_session_that_nobody_could_show_is_nonsense(session: agent_pb2.Session) -> None:
    with pytest.raises(GuestError) as refused:
        session_messages.session(session)
    assert refused.value.reason is Reason.GUEST_PROTOCOL


async def test_more_sessions_than_agreed_are_nonsense() -> None:
    session = agent_pb2.Session(id="init", size=SIZE)
    answer = agent_pb2.ListSessionsResponse(sessions=[session] * 256)
    assert len(await session_messages.sessions(answer)) == 256
    answer.sessions.append(session)
    with pytest.raises(GuestError, match="257 sessions"):
        await session_messages.sessions(answer)


@pytest.mark.parametrize(
    "file",
    [
        agent_pb2.FileInfo(type=agent_pb2.FILE_TYPE_REGULAR),
        agent_pb2.FileInfo(type=agent_pb2.FILE_TYPE_REGULAR, name="x" * 256),
        agent_pb2.FileInfo(type=agent_pb2.FILE_TYPE_REGULAR, name="../x"),
        agent_pb2.FileInfo(type=agent_pb2.FILE_TYPE_REGULAR, name=".."),
        agent_pb2.FileInfo(type=agent_pb2.FILE_TYPE_REGULAR, name="a\0b"),
        agent_pb2.FileInfo(type=agent_pb2.FILE_TYPE_REGULAR, name="a", mode=0o10000),
        agent_pb2.FileInfo(type=agent_pb2.FILE_TYPE_SYMLINK, name="a", link_target="x" * 4097),
        agent_pb2.FileInfo(name="a"),
    ],
)
def test_a_file_that_no_kernel_has_is_nonsense(file: agent_pb2.FileInfo) -> None:
    with pytest.raises(GuestError) as refused:
        file_messages.file_info(file)
    assert refused.value.reason is Reason.GUEST_PROTOCOL


@pytest.mark.parametrize(("after", "following"), [("", ""), ("b", "b"), ("b", "a"), ("%62", "b"), ("a", "b" * 766)])
def test_a_listing_that_does_not_come_to_an_end_is_nonsense(after: str, following: str) -> None:
    file_messages.check_next(after, "c%ff")
    with pytest.raises(GuestError) as refused:
        file_messages.check_next(after, following)
    assert refused.value.reason is Reason.GUEST_PROTOCOL

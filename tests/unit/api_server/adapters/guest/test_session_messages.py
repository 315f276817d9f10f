"""What a guest says of its sessions is checked before anybody believes it."""

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import session_messages
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import GuestSession, SessionProgram, TerminalSize

SIZE = agent_pb2.TerminalSize(rows=24, columns=80)


def test_a_session_is_what_the_guest_says_and_fit_for_a_terminal() -> None:
    message = agent_pb2.Session(
        id="init", argv=["sh", "\x1b[2J"], size=SIZE, attached=True, idle_milliseconds=1500, age_milliseconds=2500
    )
    assert session_messages.session(message) == GuestSession(
        "init", ("sh", " [2J"), TerminalSize(24, 80), attached=True, idle_seconds=1.5, age_seconds=2.5
    )


@pytest.mark.parametrize(("rows", "columns"), [(1, 65535), (65535, 1)])
def test_the_smallest_and_the_largest_terminal_are_taken_both_ways(rows: int, columns: int) -> None:
    size = agent_pb2.TerminalSize(rows=rows, columns=columns)
    taken = session_messages.session(agent_pb2.Session(id="init", size=size)).size
    assert taken == TerminalSize(rows, columns)
    assert session_messages.terminal_size(taken) == size


@pytest.mark.parametrize(
    "message",
    [
        agent_pb2.Session(size=SIZE),
        agent_pb2.Session(id="a b", size=SIZE),
        agent_pb2.Session(id="init\n", size=SIZE),
        agent_pb2.Session(id="a" * 65, size=SIZE),
        agent_pb2.Session(id="init"),
        agent_pb2.Session(id="init", size=agent_pb2.TerminalSize(rows=65536, columns=80)),
    ],
)
def test_nonsense_is_refused(message: agent_pb2.Session) -> None:
    with pytest.raises(GuestError) as caught:
        session_messages.attached(message.SerializeToString())
    assert caught.value.reason is Reason.GUEST_PROTOCOL


@pytest.mark.parametrize(("seconds", "milliseconds"), [(None, 0), (0.0001, 1), (1.5, 1500)])
def test_the_shortest_idle_timeout_is_not_none(seconds: float | None, milliseconds: int) -> None:
    request = session_messages.create_request("", SessionProgram(idle_timeout_seconds=seconds))
    assert request.create_session.program.idle_timeout_milliseconds == milliseconds

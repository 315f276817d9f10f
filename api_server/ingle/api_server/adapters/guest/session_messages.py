"""Messages about sessions and the domain: what a guest says is checked here before anybody believes it."""

import math
import re

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest.messages import age, in_turns, nonsense, parse, printable, resource_limits
from ingle.api_server.model.guest import AttachSpec, GuestSession, SessionProgram, TerminalSize

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LARGEST_SIZE = 65535
_MOST_SESSIONS = 256
_LONGEST_ARGV = 1024  # characters and words, since an agent tells a kilobyte of it


def create_request(session_id: str, program: SessionProgram) -> agent_pb2.Request:
    """A new session as the agent wants it."""
    return agent_pb2.Request(
        create_session=agent_pb2.CreateSessionRequest(id=session_id, program=_program(program)),
    )


def attach_request(spec: AttachSpec) -> agent_pb2.Request:
    """An attachment as the agent wants it."""
    return agent_pb2.Request(
        attach_session=agent_pb2.AttachSessionRequest(
            id=spec.session_id,
            steal=spec.steal,
            size=None if spec.size is None else terminal_size(spec.size),
            create=None if spec.create is None else _program(spec.create),
        )
    )


def terminal_size(size: TerminalSize) -> agent_pb2.TerminalSize:
    """A size as the agent wants it."""
    return agent_pb2.TerminalSize(rows=size.rows, columns=size.columns)


def attached(payload: bytes) -> GuestSession:
    """The first answer of an attachment. Raises GuestError(GUEST_PROTOCOL)."""
    return session(parse(agent_pb2.Session, payload))


def session(message: agent_pb2.Session) -> GuestSession:
    """A session as a guest tells of it. Raises GuestError(GUEST_PROTOCOL)."""
    size = message.size
    if not _ID.fullmatch(message.id):
        raise nonsense(f"session id {printable(message.id)!r}")
    if not (1 <= size.rows <= _LARGEST_SIZE and 1 <= size.columns <= _LARGEST_SIZE):
        raise nonsense(f"a terminal of {size.rows} rows and {size.columns} columns")
    if max(len(message.argv), sum(map(len, message.argv))) > _LONGEST_ARGV:
        raise nonsense(f"an argv of {len(message.argv)} words, more than {_LONGEST_ARGV} characters")
    return GuestSession(
        id=message.id,
        argv=tuple(printable(argument) for argument in message.argv),
        size=TerminalSize(size.rows, size.columns),
        attached=message.attached,
        idle_seconds=age(message.idle_milliseconds, "idleness"),
        age_seconds=age(message.age_milliseconds, "an age"),
    )


async def sessions(message: agent_pb2.ListSessionsResponse) -> tuple[GuestSession, ...]:
    """All of them. Raises GuestError(GUEST_PROTOCOL)."""
    if len(message.sessions) > _MOST_SESSIONS:
        raise nonsense(f"{len(message.sessions)} sessions; at most {_MOST_SESSIONS} are allowed")
    return tuple(await in_turns(session, message.sessions))


def _program(program: SessionProgram) -> agent_pb2.SessionProgram:
    # Part of a millisecond counts as a whole one: 0 would mean never.
    idle = 0 if program.idle_timeout_seconds is None else max(1, math.ceil(program.idle_timeout_seconds * 1000))
    return agent_pb2.SessionProgram(
        argv=program.argv,
        env=program.env,
        working_directory=program.working_directory,
        user=program.user,
        size=None if program.size is None else terminal_size(program.size),
        idle_timeout_milliseconds=idle,
        end_with_viewer=program.end_with_viewer,
        umask=program.umask,
        limits=resource_limits(program.limits),
    )

"""Sessions: protos to model values and back."""

from datetime import UTC, datetime, timedelta

from ingle.api_server.model.environment import check_env
from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.guest import (
    Attached,
    AttachSpec,
    Detached,
    Exited,
    GuestSession,
    Output,
    Scrollback,
    SessionEvent,
    SessionProgram,
    TerminalSize,
)
from ingle.api_server.rpc.convert import duration, resource_limits, seconds_of, signal_number, timestamp, umask
from ingle.v1 import guest_pb2

_LARGEST_SIZE = 65535


def terminal_size(message: guest_pb2.TerminalSize) -> TerminalSize:
    """A size. Raises InvalidArgument for one that no terminal has."""
    if not (1 <= message.rows <= _LARGEST_SIZE and 1 <= message.columns <= _LARGEST_SIZE):
        raise InvalidArgument(
            f"a terminal of {message.rows} rows and {message.columns} columns: 1 to {_LARGEST_SIZE} are allowed"
        )
    return TerminalSize(message.rows, message.columns)


def session_program(message: guest_pb2.SessionProgram) -> SessionProgram:
    """What shall run. Raises InvalidArgument for what nobody could run."""
    if message.argv and not message.argv[0]:
        raise InvalidArgument("argv[0] is empty: name a command, or give no argv for the login shell", field="argv")
    if any("\0" in argument for argument in message.argv):
        raise InvalidArgument("argv: an argument can't hold a NUL byte", field="argv")
    check_env(message.env)
    return SessionProgram(
        argv=tuple(message.argv),
        env=dict(message.env),
        working_directory=message.working_directory,
        user=message.user,
        size=terminal_size(message.size) if message.HasField("size") else None,
        idle_timeout_seconds=seconds_of(message.idle_timeout, "idle_timeout")
        if message.HasField("idle_timeout")
        else None,
        end_with_viewer=message.end_with_viewer,
        umask=umask(message),
        limits=resource_limits(message.limits),
        with_entrypoint=message.with_entrypoint,
    )


def attach_spec(message: guest_pb2.AttachSessionStart) -> AttachSpec:
    """Which session. Raises InvalidArgument."""
    create = session_program(message.create) if message.HasField("create") else None
    if not message.session_id and create is None:
        raise InvalidArgument("session_id is empty: name a session, or say what to create", field="session_id")
    return AttachSpec(
        session_id=message.session_id,
        steal=message.steal,
        size=terminal_size(message.size) if message.HasField("size") else None,
        create=create,
    )


def session(value: GuestSession) -> guest_pb2.Session:
    """A session. When it began is told by this host's clock: the guest's may be anything."""
    return guest_pb2.Session(
        id=value.id,
        argv=value.argv,
        size=guest_pb2.TerminalSize(rows=value.size.rows, columns=value.size.columns),
        attached=value.attached,
        idle=duration(value.idle_seconds),
        started_at=timestamp(datetime.now(UTC) - timedelta(seconds=value.age_seconds)),
    )


def session_event(event: SessionEvent) -> guest_pb2.AttachSessionResponse:
    """One event of an attachment."""
    match event:
        case Output(data):
            return guest_pb2.AttachSessionResponse(output=data)
        case Scrollback(data):
            return guest_pb2.AttachSessionResponse(scrollback=data)
        case Attached(attached):
            return guest_pb2.AttachSessionResponse(attached=session(attached))
        case Exited(exit_code, signal):
            return guest_pb2.AttachSessionResponse(
                exited=guest_pb2.ExecExited(exit_code=exit_code, signal=signal_number(signal))
            )
        case Detached():
            return guest_pb2.AttachSessionResponse(detached=guest_pb2.SessionDetached())

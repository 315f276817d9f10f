"""Commands in a guest."""

import shlex
from collections.abc import Iterable
from typing import cast

from ingle.api_server.model.environment import check_env
from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.guest import (
    ExecEvent,
    ExecSpec,
    Exited,
    Started,
    Stderr,
    Stdout,
)
from ingle.api_server.model.limits import Limited, ResourceLimit, check_limits, check_umask
from ingle.api_server.rpc.convert.times import seconds_of
from ingle.v1 import guest_pb2, signal_pb2


def exec_spec(message: guest_pb2.ExecStart) -> ExecSpec:
    """A command. Raises InvalidArgument for one that nobody could run."""
    if not (message.argv or message.with_entrypoint) or (message.argv and not message.argv[0]):
        raise InvalidArgument(
            "argv is empty: name a command to run", f"ingle vm exec {shlex.quote(message.vm)} -- uname -a", field="argv"
        )
    if any("\0" in argument for argument in message.argv):
        raise InvalidArgument("argv: an argument can't hold a NUL byte", field="argv")
    check_env(message.env)
    if message.detach and message.open_stdin:
        raise InvalidArgument("detach goes without open_stdin: nobody is there to send any", field="detach")
    if message.output_to_console and not message.detach:
        raise InvalidArgument(
            "output_to_console is for detached commands: a caller gets the output itself", field="output_to_console"
        )
    return ExecSpec(
        argv=tuple(message.argv),
        env=dict(message.env),
        working_directory=message.working_directory,
        user=message.user,
        stdin=message.open_stdin,
        timeout_seconds=seconds_of(message.timeout, "timeout") if message.HasField("timeout") else None,
        detach=message.detach,
        output_to_console=message.output_to_console,
        umask=umask(message),
        limits=resource_limits(message.limits),
        wait_output=message.wait_output,
        with_entrypoint=message.with_entrypoint,
    )


def umask(message: guest_pb2.ExecStart | guest_pb2.SessionProgram) -> int | None:
    """A umask, None when there is none. Raises InvalidArgument."""
    if not message.HasField("umask"):
        return None
    check_umask(message.umask)
    return message.umask


def resource_limits(messages: Iterable[guest_pb2.ResourceLimit]) -> tuple[ResourceLimit, ...]:
    """Limits. Raises InvalidArgument for those that nothing could have."""
    limits = tuple(ResourceLimit(_resource(message.resource), message.soft, message.hard) for message in messages)
    check_limits(limits)
    return limits


def exec_event(event: ExecEvent) -> guest_pb2.ExecResponse:
    """One event of a command."""
    match event:
        case Stdout(data):
            return guest_pb2.ExecResponse(stdout_data=data)
        case Stderr(data):
            return guest_pb2.ExecResponse(stderr_data=data)
        case Started(pid):
            return guest_pb2.ExecResponse(started=guest_pb2.ExecStarted(pid=pid))
        case Exited(exit_code, signal, timed_out, output_cut, _):
            exited = guest_pb2.ExecExited(
                exit_code=exit_code, signal=signal_number(signal), timed_out=timed_out, output_cut=output_cut
            )
            return guest_pb2.ExecResponse(exited=exited)


def signal_number(number: int) -> signal_pb2.Signal.ValueType:
    """A signal that ended something, 0 for none: the enum's values are its numbers, also of those without a name."""
    return cast("signal_pb2.Signal.ValueType", number)


def _resource(number: guest_pb2.Resource.ValueType) -> Limited:
    try:
        return Limited[guest_pb2.Resource.Name(number).removeprefix("RESOURCE_")]
    except (KeyError, ValueError):
        known = ", ".join(sorted(resource.name for resource in Limited))
        raise InvalidArgument(f"resource {number}: one of {known} is allowed", field="limits") from None

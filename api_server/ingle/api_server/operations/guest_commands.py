"""Commands and terminals in guests, with what they leave to the VM's image."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from ingle.api_server.model.caller import Reference
from ingle.api_server.model.guest import (
    AttachSpec,
    CommandResult,
    ExecEvent,
    ExecSpec,
    Exited,
    GuestSession,
    Input,
    InputEnd,
    Said,
    SessionEvent,
    SessionProgram,
    Stderr,
    Stdout,
)
from ingle.api_server.model.vm import Vm
from ingle.api_server.operations.use_guest import UseGuest


def converse(
    guests: UseGuest, reference: Reference, spec: ExecSpec, said: AsyncIterator[Said]
) -> AsyncGenerator[ExecEvent, None]:
    """A command, and what the caller says to it. Raises what UseGuest does, and what `exec` of a GuestChannel does."""
    return guests.converse(reference, lambda channel, vm: channel.exec(vm.settings.workload.completed(spec)), said)


async def create_session(
    guests: UseGuest, reference: Reference, session_id: str, program: SessionProgram
) -> GuestSession:
    """A command on a terminal that lives on without viewers. Raises the same, as of `create_session`."""
    vm = await guests.exact(reference)
    async with guests.inside(vm) as channel:
        return await channel.create_session(session_id, vm.settings.workload.completed(program))


def attach(
    guests: UseGuest, reference: Reference, spec: AttachSpec, said: AsyncIterator[Said]
) -> AsyncGenerator[SessionEvent, None]:
    """Become a session's one viewer. Raises the same, as of `attach_session`."""
    return guests.converse(reference, lambda channel, vm: channel.attach_session(_completed(spec, vm)), said)


def _completed(spec: AttachSpec, vm: Vm) -> AttachSpec:
    return spec if spec.create is None else replace(spec, create=vm.settings.workload.completed(spec.create))


async def run(guests: UseGuest, reference: Reference, spec: ExecSpec, stdin: bytes, most_bytes: int) -> CommandResult:
    """A command as one question and one answer: to its end, with all of its input. Of each output `most_bytes` are
    kept: the rest is read, so that the command is not held up. Raises the same as `converse`."""
    spec = replace(spec, stdin=bool(stdin))
    out, err = _Kept(most_bytes), _Kept(most_bytes)
    exited = Exited(0)  # the events end by the real one, or raise
    async with aclosing(converse(guests, reference, spec, _all_of(stdin))) as events:
        async for event in events:
            match event:
                case Stdout(data):
                    out.add(data)
                case Stderr(data):
                    err.add(data)
                case Exited():
                    exited = event
    return CommandResult(exited, bytes(out.data), bytes(err.data), out.truncated, err.truncated)


class _Kept:
    """The beginning of an output."""

    def __init__(self, most_bytes: int) -> None:
        self.data = bytearray()
        self.truncated = False
        self._most = most_bytes

    def add(self, data: bytes) -> None:
        room = self._most - len(self.data)
        self.data += data[:room]
        self.truncated |= len(data) > room


async def _all_of(stdin: bytes) -> AsyncIterator[Said]:
    if stdin:
        yield Input(stdin)
        yield InputEnd()

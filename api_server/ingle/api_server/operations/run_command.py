"""A command as one question and one answer, for whom all of its input and output fits in a message."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from ingle.api_server.model.caller import Reference
from ingle.api_server.model.guest import CommandResult, ExecSpec, Exited, Input, InputEnd, Said, Stderr, Stdout
from ingle.api_server.operations.use_guest import UseGuest


async def run_command(
    guests: UseGuest, reference: Reference, spec: ExecSpec, stdin: bytes, most_bytes: int
) -> CommandResult:
    """To its end, with all of its input. Of each output `most_bytes` are kept: the rest is read, so that the command
    is not held up. Raises what UseGuest does, and what `exec` of a GuestChannel does."""
    spec = replace(spec, stdin=bool(stdin))
    out, err = _Kept(most_bytes), _Kept(most_bytes)
    exited = Exited(0)  # the events end by the real one, or raise
    async with aclosing(guests.converse(reference, lambda channel: channel.exec(spec), _all_of(stdin))) as events:
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

"""The part of GuestService that is about commands."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeAlias

import grpc

from ingle.api_server.host.context import current_operation
from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.guest import Input, InputEnd, Said, Signal
from ingle.api_server.operations import guest_commands
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.rpc import convert, who
from ingle.api_server.rpc.guest.conversation import answers, not_allowed, opening
from ingle.v1 import guest_pb2, guest_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"
Requests = AsyncIterator[guest_pb2.ExecRequest]

_SIGNALS = range(1, 65)
_LARGEST_OUTPUT = 1024 * 1024  # of each kind: an answer holds 4 MiB


class CommandMethods(guest_pb2_grpc.GuestServiceServicer):
    """Commands in guests."""

    _guests: UseGuest
    _delete: DeleteVm

    async def Exec(self, request_iterator: Requests, context: Context) -> AsyncIterator[guest_pb2.ExecResponse]:
        start = (await opening(request_iterator, "an exec")).start
        if start.detach and start.delete_vm:  # refused here, where the VM is not deleted for it
            raise InvalidArgument(
                "detach does not go with delete_vm: the call ends before the command does", field="detach"
            )
        async with self._with_its_vm(start, context):
            spec = convert.exec_spec(start)
            said = _said(request_iterator, stdin=spec.stdin)
            events = guest_commands.converse(self._guests, who.reference(context, start.vm), spec, said)
            async for answer in answers(events, convert.exec_event):
                yield answer

    async def Run(self, request: guest_pb2.RunRequest, context: Context) -> guest_pb2.RunResponse:
        start = request.start
        if start.detach or start.open_stdin:
            field = "start.detach" if start.detach else "start.open_stdin"
            raise InvalidArgument(
                f"{field}: not for a command that is one question and one answer; use Exec", field=field
            )
        most_bytes = request.max_output_bytes or _LARGEST_OUTPUT
        if most_bytes > _LARGEST_OUTPUT:
            problem = f"max_output_bytes {most_bytes}: at most {_LARGEST_OUTPUT} is allowed"
            raise InvalidArgument(problem, field="max_output_bytes")
        stdin = request.stdin_data
        async with self._with_its_vm(start, context):
            vm = who.reference(context, start.vm)
            result = await guest_commands.run(self._guests, vm, convert.exec_spec(start), stdin, most_bytes)
        return guest_pb2.RunResponse(
            exited=convert.exec_event(result.exited).exited,
            stdout_data=result.stdout,
            stderr_data=result.stderr,
            stdout_truncated=result.stdout_truncated,
            stderr_truncated=result.stderr_truncated,
        )

    def _with_its_vm(self, start: guest_pb2.ExecStart, context: Context) -> AbstractAsyncContextManager[None]:
        if not start.delete_vm:
            return nullcontext()
        return self._delete.afterwards(current_operation.get(), who.reference(context, start.vm))


async def _said(requests: Requests, *, stdin: bool) -> AsyncIterator[Said]:
    """What the caller says to its command. The end of the messages is not the end of the input: that looks the same
    when a caller leaves."""
    async for request in requests:
        match request.WhichOneof("message"):
            case "stdin_data":
                yield Input(request.stdin_data)
            case "stdin_eof":
                stdin = False
                yield InputEnd()
            case "signal":
                if request.signal.signal not in _SIGNALS:
                    raise InvalidArgument(f"signal {request.signal.signal}: 1 to 64 is allowed")
                yield Signal(request.signal.signal)
            case other:
                raise not_allowed(other)
    if stdin:
        raise InvalidArgument(
            "the messages stopped before stdin_eof: the command was killed, as when its caller leaves",
            "send stdin_eof as the end of its input, or start it without open_stdin",
        )

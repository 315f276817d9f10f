"""GuestService: what happens inside a VM, streamed."""

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeAlias

import grpc

from ingle.api_server.host.context import current_operation
from ingle.api_server.model.errors import GuestError, InvalidArgument, NotFound, Reason
from ingle.api_server.model.guest import Exited
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.pipeline import uninterrupted
from ingle.api_server.ports.guest import ExecSession
from ingle.api_server.ports.store import Store
from ingle.api_server.rpc import convert
from ingle.api_server.rpc.conversation import both_ways
from ingle.api_server.rpc.forward import ForwardCalls
from ingle.api_server.rpc.guest_files import FileCalls
from ingle.api_server.rpc.sessions import SessionCalls
from ingle.v1 import guest_pb2

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"
Requests = AsyncIterator[guest_pb2.ExecRequest]

_LARGEST_STDIN = 1024 * 1024
_SIGNALS = range(1, 65)


class GuestServicer(SessionCalls, FileCalls, ForwardCalls):
    """Commands in guests."""

    def __init__(self, store: Store, fleet: Fleet, delete: DeleteVm) -> None:
        super().__init__(store, fleet)
        self._delete = delete

    async def Exec(self, request_iterator: Requests, context: Context) -> AsyncIterator[guest_pb2.ExecResponse]:
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("message") != "start":
            raise InvalidArgument("the first message of an exec must be `start`")
        start = first.start
        if start.detach and start.delete_vm:  # refused here, where the VM is not deleted for it
            raise InvalidArgument("detach does not go with delete_vm: the call ends before the command does")
        vm = await self._store.vm(start.vm)
        try:
            if start.delete_vm:  # from here on: who leaves at once may be in the store already
                await self._store.owned_by_a_call(vm.id)
            spec = convert.exec_spec(start)
            async with self._fleet.conversation(vm) as channel, channel.exec(spec) as session:
                carry = _carry(request_iterator, session, stdin=spec.stdin)
                async with aclosing(both_ways(carry, session.leave, session.events())) as events:
                    async for event in events:
                        if isinstance(event, Exited) and event.signal and not event.timed_out:
                            await self._fleet.check_killed(vm)
                        yield convert.exec_event(event)
        except GuestError as error:
            if error.reason is Reason.VM_ENDED and start.delete_vm:  # then there is nothing to start again
                raise GuestError(error.reason, error.message) from error
            raise
        finally:
            if start.delete_vm:
                await uninterrupted(self._delete_vm(vm.id))

    async def _delete_vm(self, vm_id: str) -> None:
        try:
            running = await self._delete.delete(current_operation.get(), vm_id, force=True)
            await running.result()
        except NotFound:
            log.info("the VM was deleted already", extra={"vm": vm_id})


async def _carry(requests: Requests, session: ExecSession, *, stdin: bool) -> None:
    """Carry the caller's input to the command, at the command's pace. The end of the messages is not the end of the
    input: that looks the same when a caller leaves."""
    async for request in requests:
        match request.WhichOneof("message"):
            case "stdin":
                if len(request.stdin) > _LARGEST_STDIN:
                    raise InvalidArgument(f"{len(request.stdin)} bytes of stdin at once; {_LARGEST_STDIN} is allowed")
                await session.write_stdin(request.stdin)
            case "stdin_eof":
                stdin = False
                await session.close_stdin()
            case "signal":
                if request.signal.signal not in _SIGNALS:
                    raise InvalidArgument(f"signal {request.signal.signal}: 1 to 64 is allowed")
                await session.send_signal(request.signal.signal)
            case other:
                raise InvalidArgument(f"message {other or 'without content'} is not allowed after start")
    if stdin:
        raise InvalidArgument(
            "the messages stopped before stdin_eof: the command was killed, as when its caller leaves",
            "send stdin_eof as the end of its input, or start it without stdin",
        )

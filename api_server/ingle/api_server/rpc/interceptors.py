"""What every call goes through, known method or not, before a servicer sees it.

Mints the op_id, refuses callers that did not come through the accept gate and clients of another contract, decodes the
request, refuses one that says more than it may, and turns every failure into one error model.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message

from ingle.api_server.host.context import current_operation
from ingle.api_server.model.errors import Conflict, IngleError, InvalidArgument, Reason
from ingle.api_server.model.ids import new_op_id
from ingle.api_server.model.spec import size_text
from ingle.api_server.pipeline import root_cause
from ingle.api_server.rpc import bounds, who
from ingle.api_server.rpc.calls import MOST_OF_ONE_USER, Call, Calls
from ingle.api_server.rpc.errors import OP_ID_KEY, VERSION_KEY, abort
from ingle.api_server.version import API_VERSION

log = logging.getLogger(__name__)

MESSAGE_LIMIT = 4 * 1024 * 1024
"""Bytes in one request. grpc itself refuses only far larger ones, and can't stamp an op_id on that."""

_TRANSPORT_LIMIT = 64 * 1024 * 1024
_MOST_WAITING = 10 * MOST_OF_ONE_USER
_LOGGED = 4096  # of why a call is refused: no more than its caller is told, whatever that said

TRANSPORT = (
    ("grpc.max_receive_message_length", _TRANSPORT_LIMIT),
    ("grpc.max_send_message_length", _TRANSPORT_LIMIT),
    ("grpc.so_reuseport", 0),
    # One connection's calls beyond that wait at the client; many connections' wait here, up to a bound at which gRPC
    # drops calls without a word: it is the user's own queue.
    ("grpc.max_concurrent_streams", MOST_OF_ONE_USER),
    ("grpc.server.max_pending_requests", _MOST_WAITING),
    ("grpc.server.max_pending_requests_hard_limit", _MOST_WAITING),
    # Pings of clients that want to know whether we are there are welcome, with and without calls. On a unix socket they
    # cost no more than any request; as it comes, gRPC would end the connection for the third within five minutes.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
)
"""Options of the server."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in its stubs only, hence the quotes
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CallInterceptor(grpc.aio.ServerInterceptor):
    """The outermost interceptor, and the only one."""

    def __init__(self) -> None:
        self.calls = Calls()

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the method's handler, or stand in for one that does not exist."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            # Of whatever kind it is: nobody waits for a message that may never come.
            return grpc.stream_stream_rpc_method_handler(_Way(method, None, self.calls).unknown)
        way = _Way(method, handler, self.calls)
        # No deserializer: bytes come in, so that a request that can't be decoded gets our kind of error as well.
        if handler.response_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(way.streaming, response_serializer=handler.response_serializer)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(way.gathering, response_serializer=handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(way.unary, response_serializer=handler.response_serializer)


class _Way:
    """One method's way through the interceptor."""

    def __init__(self, method: str, handler: "Handler | None", calls: Calls) -> None:
        self.method = method
        self.calls = calls
        self.first_request: object = None
        self._handler: Any = handler

    async def unary(self, request: bytes, context: Context) -> object:
        async with _Guard(self, context) as call:
            await _admit(context, call)
            return await self._handler.unary_unary(self._decode(request), context)

    async def gathering(self, requests: AsyncIterator[bytes], context: Context) -> object:
        async with _Guard(self, context) as call:
            await _admit(context, call)
            return await self._handler.stream_unary(self._decode_all(requests), context)

    async def streaming(self, request: Any, context: Context) -> None:
        # Written here, and not by grpc as a generator yields: who is interrupted in the middle of that ends the call
        # without a status, and its caller waits for ever.
        async with _Guard(self, context) as call:
            await _admit(context, call)
            if self._handler.request_streaming:
                responses = self._handler.stream_stream(self._decode_all(request), context)
            else:
                responses = self._handler.unary_stream(self._decode(request), context)
            try:
                async for response in responses:
                    await context.write(response)
            finally:
                # A caller that goes away must end the method now, not when the garbage collector finds it.
                await responses.aclose()

    async def unknown(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async with _Guard(self, context) as call:
            await _admit(context, call)
            raise Conflict(
                Reason.UNKNOWN_METHOD,
                f"this server has no method {self.method}",
                "is the server older than the client?",
            )

    def _decode(self, request: bytes) -> object:
        if len(request) > MESSAGE_LIMIT:
            raise MessageTooLarge(len(request))
        try:
            message = self._handler.request_deserializer(request)
        except DecodeError:
            raise InvalidArgument(f"the request is not a message that {self.method} takes") from None
        if self.first_request is None:
            self.first_request = message
        if isinstance(message, Message):
            bounds.check(message, len(request))
        return message

    async def _decode_all(self, requests: AsyncIterator[bytes]) -> AsyncIterator[object]:
        async for request in requests:
            yield self._decode(request)


class MessageTooLarge(IngleError):
    """A request over the limit."""

    def __init__(self, size: int) -> None:
        super().__init__(
            Reason.MESSAGE_TOO_LARGE,
            f"a message of {size_text(size)}; {size_text(MESSAGE_LIMIT)} is allowed",
            "send it in pieces",
        )


class _Guard:
    """Gives a call its op_id, logs it, and turns whatever it raises into an error on the wire."""

    def __init__(self, way: _Way, context: Context) -> None:
        self._way = way
        self._method = way.method
        self._context = context
        self._op_id = new_op_id()
        self._began = time.perf_counter()

    async def __aenter__(self) -> Call:
        self._call = self._way.calls.begin(self._method)
        current_operation.set(self._op_id)
        self._context.set_trailing_metadata(((OP_ID_KEY, self._op_id),))
        log.debug("call %s", self._method, extra={"peer": self._context.peer()})
        return self._call

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            await self._tell(error)
        except grpc.aio.InternalError:
            # What was to be sent found nobody. It would be logged as a fault of ours.
            raise asyncio.CancelledError from None
        finally:
            self._call.end()

    async def _tell(self, error: BaseException | None) -> None:
        took = {"method": self._method, "ms": round((time.perf_counter() - self._began) * 1000, 1)}
        if error is None:
            log.info("call", extra=took)
            return
        cause = self._call.why_cancelled(root_cause(error))
        if isinstance(cause, grpc.aio.InternalError):
            log.info("call left by its caller", extra=took)
            raise cause
        if isinstance(cause, (asyncio.CancelledError, GeneratorExit)):
            log.info("call cancelled by its caller", extra=took)
            return
        if isinstance(cause, grpc.aio.AbortError):
            return
        if not isinstance(cause, IngleError):
            log.error("call failed unexpectedly", exc_info=error, extra=took)
            cause = IngleError(Reason.INTERNAL, "this is a fault of ingle's", f"ingle server logs has {self._op_id}")
        else:
            log.info("call refused", extra={**took, "reason": cause.reason.name, "why": cause.message[:_LOGGED]})
        await abort(self._context, self._op_id, cause, self._way.first_request)


async def _admit(context: Context, call: Call) -> None:
    """Answer with the op_id at once: the call can be watched from now on, and no client waits for headers in vain."""
    call.admit(who.caller(context).uid)
    _check_version(context)
    await context.send_initial_metadata(((OP_ID_KEY, current_operation.get()),))


def _check_version(context: Context) -> None:
    for key, value in context.invocation_metadata() or ():
        if key == VERSION_KEY and value != str(API_VERSION):
            older = "server" if str(value).isdigit() and int(value) > API_VERSION else "client"
            raise Conflict(
                Reason.BAD_VERSION,
                f"the client speaks API version {value!s:.20}, this server {API_VERSION}",
                f"upgrade the {older}",
            )

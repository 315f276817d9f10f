"""HelperClient to the root helper: their op_id goes with them, and their errors come back as ours."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias, TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2

from ingle.api_server.host.context import current_operation
from ingle.api_server.model.errors import HostProblem, Reason, ToolFailed
from ingle.helper.v1 import helper_pb2_grpc

_Response = TypeVar("_Response")
_Method: TypeAlias = Callable[["helper_pb2_grpc.HelperServiceAsyncStub"], Callable[..., Awaitable[_Response]]]

PATIENCE_SECONDS = 15.0
"""A helper that was killed is back within two, on a host that isn't busy."""

_SECONDS = 120.0
"""The first change of all has the kernel load modules for the firewall: half a minute on a busy, emulated host."""

_PAUSE_SECONDS = 0.1
_OP_ID_KEY = "ingle-op-id"
_DETAILS_KEY = "grpc-status-details-bin"


class HelperClient:
    """One connection to the helper of `unit` on `socket`, made when it is first needed.

    A helper may be restarted at any time. Each of its verbs can be asked for again, whether it was done or not, so a
    call waits up to `patience` seconds for the next helper; when one has waited in vain, none waits any more until a
    helper answers again. A unit that was never started, whose directory is missing, is not waited for."""

    def __init__(self, socket: Path, unit: str, patience: float = PATIENCE_SECONDS) -> None:
        self._socket = socket
        self._remedy = f"sudo systemctl restart {unit}"
        self._patience = patience
        self._wait = patience
        self._stub: helper_pb2_grpc.HelperServiceAsyncStub | None = None

    async def ask(self, method: _Method[_Response], request: object) -> _Response:
        """Ask. Raises HostProblem(DEPENDENCY_MISSING) when nobody answers, IngleError with the helper's own reason."""
        until = time.monotonic() + self._wait
        while True:
            try:
                answer = await self._ask_once(method, request)
            except _NobodyAnswersError as error:
                if time.monotonic() >= until or not self._socket.parent.exists():
                    self._wait = 0.0
                    raise HostProblem(Reason.DEPENDENCY_MISSING, str(error), self._remedy) from error
            else:
                self._wait = self._patience
                return answer
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask_once(self, method: _Method[_Response], request: object) -> _Response:
        if not self._socket.exists():
            raise _NobodyAnswersError(f"the root helper does not listen on {self._socket}")
        if self._stub is None:
            # Of its own, or a new channel would go on with the backoff of an earlier one to the same socket.
            options = (("grpc.use_local_subchannel_pool", 1),)
            self._stub = helper_pb2_grpc.HelperServiceStub(
                grpc.aio.insecure_channel(f"unix:{self._socket}", options=options)
            )
        stub = self._stub
        try:
            metadata = ((_OP_ID_KEY, current_operation.get()),)
            return await method(stub)(request, metadata=metadata, timeout=_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE and self._stub is stub:
                self._stub = None  # the next attempt looks for a helper at once
            raise _translated(error) from error


class _NobodyAnswersError(Exception):
    """There is no helper, or it ended in the middle of the call."""


def _translated(error: grpc.aio.AioRpcError) -> Exception:
    details = dict(error.trailing_metadata() or ()).get(_DETAILS_KEY)
    if not isinstance(details, bytes):
        return _NobodyAnswersError(f"the root helper does not answer: {error.details()}")
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(details).details:
        detail.Unpack(info)
    if info.reason not in Reason.__members__:
        return ToolFailed(Reason.TOOL_FAILED, f"the root helper: {error.details()}")
    return HostProblem(Reason[info.reason], f"the root helper: {error.details()}", info.metadata.get("remedy", ""))

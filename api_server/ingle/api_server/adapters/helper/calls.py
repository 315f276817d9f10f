"""Calls to the root helper: their op_id goes with them, and their errors come back as ours."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2

from ingle.api_server.host.context import current_operation
from ingle.api_server.model.errors import HostProblem, IngleError, Reason, ToolFailed
from ingle.helper.v1 import helper_pb2_grpc

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_SECONDS = 30.0
_OP_ID_KEY = "ingle-op-id"
_DETAILS_KEY = "grpc-status-details-bin"


class Calls:
    """One connection to the helper on `socket`, made when it is first needed."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._stub: helper_pb2_grpc.HelperServiceAsyncStub | None = None

    @property
    def stub(self) -> "helper_pb2_grpc.HelperServiceAsyncStub":
        """Its methods, to be called by `make`."""
        if self._stub is None:
            # Of its own, or a new channel would go on with the backoff of an earlier one to the same socket.
            options = (("grpc.use_local_subchannel_pool", 1),)
            channel = grpc.aio.insecure_channel(f"unix:{self._socket}", options=options)
            self._stub = helper_pb2_grpc.HelperServiceStub(channel)
        return self._stub

    async def make(self, method: Callable[..., Awaitable[_Response]], request: _Request) -> _Response:
        """Ask. Raises HostProblem(DEPENDENCY_MISSING) when nobody answers, IngleError with the helper's own reason."""
        if not self._socket.exists():
            raise HostProblem(
                Reason.DEPENDENCY_MISSING, f"the root helper does not listen on {self._socket}", _START_IT
            )
        try:
            metadata = ((_OP_ID_KEY, current_operation.get()),)
            return await method(request, metadata=metadata, timeout=_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self._stub = None  # the helper may be restarted at any time: the next call looks for it at once
            raise _translated(error) from error


_START_IT = "sudo systemctl restart ingle-helper"


def _translated(error: grpc.aio.AioRpcError) -> IngleError:
    details = dict(error.trailing_metadata() or ()).get(_DETAILS_KEY)
    if not isinstance(details, bytes):
        return HostProblem(Reason.DEPENDENCY_MISSING, f"the root helper does not answer: {error.details()}", _START_IT)
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(details).details:
        detail.Unpack(info)
    if info.reason not in Reason.__members__:
        return ToolFailed(Reason.TOOL_FAILED, f"the root helper: {error.details()}")
    return HostProblem(Reason[info.reason], f"the root helper: {error.details()}", info.metadata.get("remedy", ""))

"""What is wanted of a log, and what that says."""

from ingle.api_server.ports.vm_files import LogWish, Said
from ingle.api_server.rpc.convert.times import time, timestamp
from ingle.v1 import vm_pb2


def log_wish(request: vm_pb2.StreamVmLogsRequest) -> LogWish:
    """Raises InvalidArgument for times that can't be."""
    return LogWish(
        follow=request.follow,
        tail_lines=request.tail_lines if request.HasField("tail_lines") else None,
        since=time(request.since, "since") if request.HasField("since") else None,
        until=time(request.until, "until") if request.HasField("until") else None,
    )


def said(piece: Said) -> vm_pb2.StreamVmLogsResponse:
    """The next bytes, with their time."""
    return vm_pb2.StreamVmLogsResponse(data=piece.data, time=timestamp(piece.time))

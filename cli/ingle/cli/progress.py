"""Operations under way: followed to their end."""

from ingle.cli.client import Client
from ingle.cli.errors import CliError, Failure
from ingle.cli.stages import Stages
from ingle.v1 import error_pb2, operation_pb2


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while an operation was under way. It was cancelled and undone, unless `operation` says that it had
    succeeded already."""

    def __init__(self, operation: operation_pb2.Operation) -> None:
        super().__init__("interrupted")
        self.operation = operation


def follow(client: Client, operation_id: str, stages: Stages) -> operation_pb2.Operation:
    """Show an operation that this command began until it has succeeded; answers its last state.

    If this process goes away the server cancels it. Ctrl-C cancels, waits until all is undone, and raises Interrupted;
    a second Ctrl-C leaves at once. Raises CliError when it failed."""
    request = operation_pb2.WatchOperationRequest(operation_id=operation_id, cancel_on_disconnect=True)
    watch = client.begin(request, operation_pb2.WatchOperationResponse)
    operation = operation_pb2.Operation()
    try:
        for response in watch:
            operation = response.operation
            stages.update(operation)
    except KeyboardInterrupt:
        stages.under_way("Undoing what was done")
        cancel = operation_pb2.CancelOperationRequest(operation_id=operation_id)
        cancelled = client.call(cancel, operation_pb2.CancelOperationResponse)
        raise Interrupted(cancelled.operation) from None
    raise_if_failed(operation)
    return operation


def raise_if_failed(operation: operation_pb2.Operation) -> None:
    """CliError with what a failed or cancelled operation keeps as its error."""
    if operation.state in {operation_pb2.OPERATION_STATE_FAILED, operation_pb2.OPERATION_STATE_CANCELLED}:
        error = operation.error
        reason = error_pb2.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
        raise CliError(Failure(reason, error.message, error.remedy, error.op_id or operation.id))

"""Operations."""

from ingle.api_server.model.operation import Failure, Operation, Stage
from ingle.api_server.rpc.convert.times import timestamp
from ingle.api_server.rpc.remedies import with_names
from ingle.v1 import error_pb2, operation_pb2


def operation(value: Operation) -> operation_pb2.Operation:
    """An operation with all its stages."""
    message = operation_pb2.Operation(
        id=value.id,
        kind=operation_pb2.OperationKind.Value(f"OPERATION_KIND_{value.kind.name}"),
        state=operation_pb2.OperationState.Value(f"OPERATION_STATE_{value.state.name}"),
        target_id=value.target_id,
        owner=value.owner,
        stages=[_stage(item) for item in value.stages],
        created_at=timestamp(value.created_at),
        warnings=value.warnings,
    )
    if value.finished_at is not None:
        message.finished_at.CopyFrom(timestamp(value.finished_at))
    if value.failure is not None:
        message.error.CopyFrom(_error(value.failure, value.id))
    return message


def _stage(value: Stage) -> operation_pb2.Stage:
    message = operation_pb2.Stage(
        name=value.name, text=value.text, started_at=timestamp(value.started_at), fraction=value.fraction
    )
    if value.finished_at is not None:
        message.finished_at.CopyFrom(timestamp(value.finished_at))
    return message


def _error(value: Failure, op_id: str) -> error_pb2.Failure:
    return error_pb2.Failure(
        reason=error_pb2.ErrorReason.Value(f"ERROR_REASON_{value.reason.name}"),
        message=value.message,
        remedy=with_names(value.remedy, None),
        op_id=op_id,
    )

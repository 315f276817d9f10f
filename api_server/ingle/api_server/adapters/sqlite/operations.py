"""Operations, in SQLite."""

import json
import sqlite3
from typing import Any

from ingle.api_server.adapters.sqlite.database import Database, insert, micros, time_of
from ingle.api_server.model.caller import Caller
from ingle.api_server.model.errors import NotFound, Reason
from ingle.api_server.model.operation import Failure, Operation, OperationKind, OperationState, Stage

_KEPT = 1000
"""Of each owner's that have ended, however long a server runs."""


class SqliteOperations:
    """Implements ports.store.operations.OperationStore."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, operation: Operation) -> None:
        async with self._database.transaction() as db:
            await insert(db, "operations", _columns(operation), "INSERT OR REPLACE")
            if operation.state is not OperationState.RUNNING:
                await db.execute("DELETE FROM kept WHERE op_id = ?", (operation.id,))
            await db.execute(
                """
                DELETE FROM operations WHERE owner = ?1 AND state != 'RUNNING' AND rowid <= (
                    SELECT rowid FROM operations WHERE owner = ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2
                )
                """,
                (operation.owner, _KEPT),
            )

    async def get(self, op_id: str, caller: Caller) -> Operation:
        row = self._database.rows.execute("SELECT * FROM operations WHERE id = ?", (op_id,)).fetchone()
        if row is None or not caller.knows(row["owner"]):
            raise NotFound(Reason.OPERATION_NOT_FOUND, f"no operation {op_id!r}", "ingle operation list")
        return _operation_of(row)

    async def of(self, caller: Caller, *, all_users: bool = False) -> list[Operation]:
        if all_users:
            caller.check_all_users()
            return await self.latest()
        sql = "SELECT * FROM operations WHERE owner = ? ORDER BY created_at DESC, rowid DESC"
        return [_operation_of(row) for row in await self._database.read(sql, caller.uid)]

    async def latest(self, limit: int | None = None) -> list[Operation]:
        found = await self._database.read(
            "SELECT * FROM operations ORDER BY created_at DESC, rowid DESC LIMIT ?", -1 if limit is None else limit
        )
        return [_operation_of(row) for row in found]


def _operation_of(row: sqlite3.Row) -> Operation:
    failure = None
    if row["reason"] is not None:
        failure = Failure(Reason[row["reason"]], row["message"], row["remedy"])
    return Operation(
        id=row["id"],
        kind=OperationKind[row["kind"]],
        state=OperationState[row["state"]],
        created_at=time_of(row["created_at"]),
        finished_at=None if row["finished_at"] is None else time_of(row["finished_at"]),
        target_id=row["target_id"],
        stages=tuple(_stage_of(item) for item in json.loads(row["stages"])),
        failure=failure,
        warnings=tuple(json.loads(row["warnings"])),
        owner=row["owner"],
    )


def _columns(operation: Operation) -> dict[str, Any]:
    failure = operation.failure
    return {
        "id": operation.id,
        "kind": operation.kind.name,
        "state": operation.state.name,
        "created_at": micros(operation.created_at),
        "finished_at": None if operation.finished_at is None else micros(operation.finished_at),
        "target_id": operation.target_id,
        "owner": operation.owner,
        "stages": stages_text(operation.stages),
        "warnings": json.dumps(operation.warnings),
        "reason": failure and failure.reason.name,
        "message": failure and failure.message,
        "remedy": failure and failure.remedy,
    }


def stages_text(stages: tuple[Stage, ...]) -> str:
    """The column `stages`."""
    return json.dumps([_stage_columns(stage) for stage in stages])


def _stage_of(item: dict[str, Any]) -> Stage:
    ended = item["finished_at"]
    return Stage(
        name=item["name"],
        text=item["text"],
        started_at=time_of(item["started_at"]),
        finished_at=None if ended is None else time_of(ended),
        fraction=item["fraction"],
    )


def _stage_columns(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "text": stage.text,
        "started_at": micros(stage.started_at),
        "finished_at": None if stage.finished_at is None else micros(stage.finished_at),
        "fraction": stage.fraction,
    }

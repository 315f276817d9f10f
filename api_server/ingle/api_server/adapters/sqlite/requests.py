"""Creates that may be sent again, in SQLite."""

from ingle.api_server.adapters.sqlite.database import Database, insert
from ingle.api_server.ports.store.requests import Asked, RequestKey

_KEPT = 10_000
"""Of each user."""


class SqliteRequests:
    """Implements ports.store.requests.RequestStore."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key: RequestKey) -> Asked | None:
        row = self._database.rows.execute(
            "SELECT digest, op_id FROM requests WHERE (uid, request_id) = (?, ?)", key
        ).fetchone()
        return None if row is None else Asked(bytes(row["digest"]), row["op_id"])

    async def save(self, key: RequestKey, asked: Asked) -> None:
        async with self._database.transaction() as db:
            await insert(db, "requests", {**key._asdict(), **asked._asdict()}, "INSERT OR REPLACE")
            await db.execute(
                """
                DELETE FROM requests WHERE uid = ?1 AND rowid <= (
                    SELECT rowid FROM requests WHERE uid = ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2
                )
                """,
                (key.uid, _KEPT),
            )

"""All that is remembered, over one database."""

from collections.abc import Callable
from pathlib import Path
from typing import Self

from ingle.api_server.adapters.sqlite.database import Database
from ingle.api_server.adapters.sqlite.events import SqliteEvents
from ingle.api_server.adapters.sqlite.items import IMAGES, KERNELS, SqliteItems
from ingle.api_server.adapters.sqlite.journal import SqliteJournal
from ingle.api_server.adapters.sqlite.operations import SqliteOperations
from ingle.api_server.adapters.sqlite.requests import SqliteRequests
from ingle.api_server.adapters.sqlite.snapshots import SqliteSnapshots
from ingle.api_server.adapters.sqlite.vms import SqliteVms
from ingle.api_server.model.caller import ROOT
from ingle.api_server.model.quota import NO_LIMITS, Quota


class SqliteStore:
    """One store a noun. Use as an async context manager: entering opens, migrates and checks the file."""

    def __init__(self, path: Path, heir: int = ROOT, quota_of: Callable[[int], Quota] = lambda uid: NO_LIMITS) -> None:
        """`heir` as of Database; `quota_of` a user is asked whenever somebody wants more."""
        self._database = Database(path, heir)
        self.events = SqliteEvents(self._database)
        self.vms = SqliteVms(self._database, self.events, quota_of)
        self.snapshots = SqliteSnapshots(self._database, self.events, self.vms.within_quota)
        self.images = SqliteItems(self._database, self.events, IMAGES)
        self.kernels = SqliteItems(self._database, self.events, KERNELS)
        self.operations = SqliteOperations(self._database)
        self.journal = SqliteJournal(self._database)
        self.requests = SqliteRequests(self._database)

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._database.__aexit__(*exc)

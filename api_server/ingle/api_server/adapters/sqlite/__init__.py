"""The store, in SQLite."""

from ingle.api_server.adapters.sqlite.store import SqliteStore, check_database

__all__ = ["SqliteStore", "check_database"]

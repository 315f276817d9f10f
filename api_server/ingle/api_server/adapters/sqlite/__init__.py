"""The store, in SQLite."""

from ingle.api_server.adapters.sqlite.networks import vms_by_network
from ingle.api_server.adapters.sqlite.store import SqliteStore, check_database

__all__ = ["SqliteStore", "check_database", "vms_by_network"]

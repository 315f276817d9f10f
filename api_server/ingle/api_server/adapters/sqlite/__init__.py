"""The store, in SQLite."""

from ingle.api_server.adapters.sqlite.networks import vms_by_network
from ingle.api_server.adapters.sqlite.store import SqliteStore, check_database, recorded_vms

__all__ = ["SqliteStore", "check_database", "recorded_vms", "vms_by_network"]

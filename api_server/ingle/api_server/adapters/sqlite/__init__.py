"""The stores, in SQLite."""

from ingle.api_server.adapters.sqlite.database import check_database
from ingle.api_server.adapters.sqlite.networks import vms_by_network
from ingle.api_server.adapters.sqlite.store import SqliteStore
from ingle.api_server.adapters.sqlite.vms import recorded_vms

__all__ = ["SqliteStore", "check_database", "recorded_vms", "vms_by_network"]

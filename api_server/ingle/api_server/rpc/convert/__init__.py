"""Protos to model values and back: the only place that knows both. One file a noun."""

from ingle.api_server.rpc.convert.commands import exec_event, exec_spec, resource_limits, signal_number, umask
from ingle.api_server.rpc.convert.disks import disk_usage
from ingle.api_server.rpc.convert.events import watch_answer, watch_wish
from ingle.api_server.rpc.convert.healthchecks import vm_health
from ingle.api_server.rpc.convert.items import image, kernel, logins
from ingle.api_server.rpc.convert.logs import log_wish, said
from ingle.api_server.rpc.convert.operations import operation
from ingle.api_server.rpc.convert.snapshots import snapshot, snapshot_wish
from ingle.api_server.rpc.convert.status import health, stats
from ingle.api_server.rpc.convert.times import duration, seconds_of, timestamp
from ingle.api_server.rpc.convert.vms import PROTOCOLS, vm, vm_change, vm_filter, vm_spec, wanted_labels
from ingle.api_server.rpc.convert.warm import warm_memory

__all__ = [
    "PROTOCOLS",
    "disk_usage",
    "duration",
    "exec_event",
    "exec_spec",
    "health",
    "image",
    "kernel",
    "log_wish",
    "logins",
    "operation",
    "resource_limits",
    "said",
    "seconds_of",
    "signal_number",
    "snapshot",
    "snapshot_wish",
    "stats",
    "timestamp",
    "umask",
    "vm",
    "vm_change",
    "vm_filter",
    "vm_health",
    "vm_spec",
    "wanted_labels",
    "warm_memory",
    "watch_answer",
    "watch_wish",
]

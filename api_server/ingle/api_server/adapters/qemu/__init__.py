"""The QEMU engine: `-M microvm`, an ordinary user's process, user-mode networking."""

from ingle.api_server.adapters.qemu.engine import QemuEngine
from ingle.api_server.adapters.qemu.probe import known_problems
from ingle.api_server.adapters.qemu.strays import vmms_below

__all__ = ["QemuEngine", "known_problems", "vmms_below"]

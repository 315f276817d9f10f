"""The QEMU engine: `-M microvm`, an ordinary user's process, user-mode networking."""

from ingle.api_server.adapters.qemu.engine import QemuEngine

__all__ = ["QemuEngine"]

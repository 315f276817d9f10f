"""The Firecracker engine: KVM, raw disks, a tap or no network, one process a VM that its HTTP API configures."""

from ingle.api_server.adapters.firecracker.engine import NAME, VERDICTS, FirecrackerEngine
from ingle.api_server.adapters.firecracker.program import Program, check_version

__all__ = ["NAME", "VERDICTS", "FirecrackerEngine", "Program", "check_version"]

"""Guest kernels: from the host's apt, or from a file. An ELF that both engines boot, and the modules it needs."""

from ingle.api_server.adapters.kernel.source import KernelMaker

__all__ = ["KernelMaker"]

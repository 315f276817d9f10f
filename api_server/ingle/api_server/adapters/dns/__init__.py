"""DNS for VMs: NAME.vm, the addresses behind it, and the rest from the host's own servers."""

from ingle.api_server.adapters.dns.server import DnsServer

__all__ = ["DnsServer"]

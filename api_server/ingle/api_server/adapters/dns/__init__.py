"""DNS for VMs: NAME.vm, the addresses behind it, and the rest from the host's own servers."""

from ingle.api_server.adapters.dns.absent import AbsentNames
from ingle.api_server.adapters.dns.answers import Host
from ingle.api_server.adapters.dns.server import LOOPBACK, DnsServer

__all__ = ["LOOPBACK", "AbsentNames", "DnsServer", "Host"]

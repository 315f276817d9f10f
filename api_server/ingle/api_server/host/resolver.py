"""Whom the host asks for names."""

from ipaddress import ip_address
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")


def asks_ipv6_alone(resolv_conf: Path = RESOLV_CONF) -> bool:
    """Whether the host has nameservers, and none of them with an IPv4 address; see resolv.conf(5)."""
    try:
        lines = [line.split() for line in resolv_conf.read_text(errors="replace").splitlines()]
    except OSError:
        return False
    versions = set()
    for line in lines:
        if len(line) > 1 and line[0] == "nameserver":
            try:
                versions.add(ip_address(line[1]).version)
            except ValueError:  # the resolver leaves it out, too
                continue
    return versions == {6}

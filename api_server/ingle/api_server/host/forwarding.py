"""Whether the host passes packets on between its interfaces."""

from pathlib import Path

SYSCTLS = Path("/proc/sys/net")


def forwards_ipv4(sysctls: Path = SYSCTLS) -> bool:
    """`sysctls`: another namespace's /proc/sys/net, if not ours."""
    return _is_on(sysctls / "ipv4/ip_forward")


def forwards_ipv6(sysctls: Path = SYSCTLS) -> bool:
    """The same for IPv6; False where the kernel has none."""
    return _is_on(sysctls / "ipv6/conf/all/forwarding")


def _is_on(sysctl: Path) -> bool:
    return sysctl.is_file() and sysctl.read_text().strip() != "0"

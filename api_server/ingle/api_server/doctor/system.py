"""What a server of a whole machine needs beyond what every server does: root helpers, and networks that VMs share."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ingle.api_server.adapters.disk import ReflinkDisk
from ingle.api_server.adapters.helper import (
    HelperFindings,
    Obstacle,
    ObstacleKind,
    Overlap,
    Usage,
    examine_helper,
    find_overlaps,
)
from ingle.api_server.adapters.sqlite import vms_by_network
from ingle.api_server.config import Config, Paths
from ingle.api_server.host.forwarding import SYSCTLS, forwards_ipv4, forwards_ipv6
from ingle.api_server.host.threads import in_thread
from ingle.api_server.model.caller import Caller, called
from ingle.api_server.model.check import Check, Status
from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.network import VMS_PER_NETWORK
from ingle.version import VERSION

log = logging.getLogger(__name__)

_TUN = Path("/dev/net/tun")
_DEVICE_MAPPER = Path("/sys/class/misc/device-mapper")
_NEARLY = 0.9
_NAMED = 5
_NETWORK_UNIT, _DISK_UNIT = "ingle-helper", "ingle-helper-dm"
_POLICY = "/etc/ingle/helper.toml"


async def system_checks(config: Config, caller: Caller) -> list[Check]:
    """All of them."""
    assert config.helper is not None
    assert config.device_helper is not None
    return [
        *await network_checks(config.helper, config.paths.database, caller),
        tun_check(_TUN),
        forwarding_check(),
        *await disk_checks(config.device_helper, config.paths),
    ]


async def network_checks(socket: Path, database: Path, caller: Caller) -> list[Check]:
    """Whether the helper for networks answers, and what it says; the store knows who is in which network."""
    try:
        found = await examine_helper(socket, _NETWORK_UNIT)
    except IngleError as error:
        return [Check("network helper", "fail", error.message, helper_remedy(_NETWORK_UNIT))]
    taken = await in_thread(vms_by_network, database)
    return [
        version_check("network helper", found, socket),
        addresses_check(taken, caller),
        networks_check(len(taken), found.networks.limit),
        _room(
            "taps",
            found.taps,
            f"raise max_taps in {_POLICY}, then sudo systemctl restart ingle-helper",
            "taken by VMs that run",
        ),
        await pools_check(socket),
        *firewall_checks(found.obstacles),
    ]


def version_check(name: str, found: HelperFindings, socket: Path) -> Check:
    """A helper that was not restarted after an upgrade may lack what this server asks for."""
    if found.version != VERSION:
        detail = f"version {found.version} answers on {socket}, and this server is {VERSION}"
        return Check(name, "warn", detail, "sudo ingle system restart")
    return Check(name, "pass", f"version {found.version} answers on {socket}, with {', '.join(found.capabilities)}")


def helper_remedy(unit: str) -> str:
    """For one that does not answer."""
    return f"sudo systemctl restart {unit}; journalctl -u {unit} -n 20"


def addresses_check(by_network: Mapping[tuple[int, str], int], caller: Caller) -> Check:
    """`by_network`: VMs by a network's owner and name."""
    taken = {called(owner, name, caller): vms for (owner, name), vms in by_network.items() if caller.knows(owner)}
    if not taken:
        return Check("addresses", "pass", f"none taken; {VMS_PER_NETWORK} in a network")
    names = sorted(taken, key=lambda name: -taken[name])
    others = [f"{name!r} {taken[name]}" for name in names[1:_NAMED]]
    if len(names) > _NAMED:
        others.append(f"{len(names) - _NAMED} more networks")
    of_what = ", ".join([f"in network {names[0]!r}", *others])
    use = Usage(taken[names[0]], VMS_PER_NETWORK)
    return _room("addresses", use, "delete VMs, or give new ones another --network", of_what)


def networks_check(used: int, limit: int) -> Check:
    """A pool for one network is full with it, and meant so."""
    status: Status = "warn" if used >= limit > 1 else "pass"
    remedy = f"a wider ipv4_pool in {_POLICY}, while no VM runs, then sudo ingle system restart"
    return Check("networks", status, f"{used} of {limit}", remedy if status == "warn" else "")


async def tell_overlaps(socket: Path) -> None:
    """Log what pools_check finds, unless all is well. For a server that starts: what runs goes on as it is."""
    if (check := await pools_check(socket)).status != "pass":
        log.warning("%s; to mend it: %s", check.detail, check.remedy)


async def pools_check(socket: Path) -> Check:
    """Whether somebody on this host, a VPN that came later for one, has networks where VMs have their addresses."""
    try:
        found = await find_overlaps(socket, _NETWORK_UNIT)
    except IngleError as error:
        return Check("pools", "warn", error.message, helper_remedy(_NETWORK_UNIT))
    return overlaps_check(found)


def overlaps_check(overlaps: Sequence[Overlap]) -> Check:
    """A kernel leads packets for what two have to one of them."""
    if not overlaps:
        return Check("pools", "pass", "nobody else on this host has addresses of VMs' pools")
    told = [
        f"{each.network} ({', '.join(filter(None, (each.interface, each.source)))}) overlaps VMs' {each.pool}"
        for each in overlaps[:_NAMED]
    ]
    if len(overlaps) > _NAMED:
        told.append(f"{len(overlaps) - _NAMED} more")
    detail = f"{'; '.join(told)}: an address that both have is reached at one of them only"
    return Check("pools", "warn", detail, "sudo ingle system restart --ip-pool auto")


def firewall_checks(obstacles: tuple[Obstacle, ...]) -> list[Check]:
    """One for each that is in the way."""
    if not obstacles:
        return [Check("firewall", "pass", "no rules of others are in the way of VMs")]
    return [Check("firewall", "warn", *_told(each)) for each in obstacles]


def _told(obstacle: Obstacle) -> tuple[str, str]:
    """What is in the way, and how to go past it."""
    family, chain = obstacle.family, f"{obstacle.family} {obstacle.table} {obstacle.chain}"
    by_iptables = (family, obstacle.table) in {("ip", "filter"), ("ip6", "filter")}
    program = "ip6tables" if family == "ip6" else "iptables"
    match obstacle.kind:
        case ObstacleKind.LEGACY_IPTABLES:
            program += "-legacy"
            detail = f"{program} has a filter table, and the helper no right to look: if its FORWARD or INPUT drops,"
            detail += " VMs need these rules to reach anything beyond their network, and names"
            places = ("FORWARD -i", "FORWARD -o", "INPUT -i")
            remedies = [f"sudo {program} -I {place} ingb+ -j ACCEPT" for place in places]
        case ObstacleKind.INPUT_DROPPED:
            detail = f"chain {chain} drops what VMs ask this host, so their DNS does not work"
            remedies = [f"sudo nft insert rule {chain} iifname '\"ingb*\"' accept"]
        case ObstacleKind.FORWARD_DROPPED:
            detail = f"chain {chain} drops what VMs send beyond their network, or what comes back"
            remedies = [f"sudo nft insert rule {chain} {way} '\"ingb*\"' accept" for way in ("iifname", "oifname")]
    if by_iptables and obstacle.kind != ObstacleKind.LEGACY_IPTABLES:  # where the helper puts these rules itself
        remedies = ["sudo systemctl restart ingle-helper"]
    return detail, "; ".join(remedies)


def tun_check(device: Path) -> Check:
    """Whoever may open it still gets no tap but those that the helper gave to this user."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        detail = f"{device}: {error.strerror}; no VM can be connected to a shared network"
        return Check("tun", "fail", detail, f"sudo modprobe tun; sudo chmod 0666 {device}; sudo ingle system restart")
    return Check("tun", "pass", f"{device} opens")


def forwarding_check(sysctls: Path = SYSCTLS) -> Check:
    """`sysctls`: as of host.forwarding."""
    ipv4 = "IPv4" if forwards_ipv4(sysctls) else "IPv4 for VMs alone"
    ipv6 = " and IPv6" if forwards_ipv6(sysctls) else "; NAT is for IPv4 alone, as IPv6 is not forwarded"
    return Check("forwarding", "pass", ipv4 + ipv6)


async def disk_checks(socket: Path, paths: Paths) -> list[Check]:
    """Disks as device-mapper snapshots: not needed where the file system shares blocks."""
    try:
        found = await examine_helper(socket, _DISK_UNIT)
    except IngleError as error:
        if await _shares_blocks(paths):
            detail = "none, and none is needed: the file system shares blocks between images and disks"
            return [Check("disk helper", "pass", detail)]
        detail = f"{error.message}; disks can't be device-mapper snapshots"
        installed = socket.parent.exists()
        remedy = helper_remedy(_DISK_UNIT) if installed else "sudo ingle system install"
        return [Check("disk helper", "warn", detail, remedy), device_mapper_check(_DEVICE_MAPPER)]
    remedy = f"raise max_devices in {_POLICY}, then sudo systemctl restart ingle-helper-dm"
    return [
        version_check("disk helper", found, socket),
        device_mapper_check(_DEVICE_MAPPER),
        _room("disk devices", found.devices, remedy, "taken by VMs that run"),
    ]


def device_mapper_check(device: Path) -> Check:
    """`device`: the kernel's directory about it."""
    if device.exists():
        return Check("device-mapper", "pass", "the kernel has it")
    detail = "the kernel's module is not loaded"
    return Check("device-mapper", "warn", detail, "sudo modprobe -a dm_mod dm_snapshot loop; sudo ingle system restart")


async def _shares_blocks(paths: Paths) -> bool:
    if not (paths.images.is_dir() and paths.vms.is_dir()):
        return False
    return await ReflinkDisk().usable(paths.images, paths.vms) == ""


def _room(name: str, use: Usage, remedy: str, of_what: str) -> Check:
    """How much is left."""
    detail = f"{use.used} of {use.limit} {of_what}"
    if use.used >= use.limit:
        return Check(name, "fail", f"{detail}: none is left", remedy)
    if use.used >= use.limit * _NEARLY:
        return Check(name, "warn", f"{detail}: nearly all are taken", remedy)
    return Check(name, "pass", detail)

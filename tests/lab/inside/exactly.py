"""What the machine has of ingle's, and what it is to have: one comparison for every way of breaking it."""

import json
import os
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from lab.inside.commands import lab_run

STATE = Path("/var/lib/ingle")
_POOL = int(IPv4Address("10.213.0.0"))
_RUNNING = ("running", "paused")

Things = dict[str, set[str]]


def what_there_is(user: str = "ingle") -> Things:
    """As the kernel and the file system have it, by the command or directory that shows it. `user`: the server's."""
    return {
        "ip link": {name for link in _listed("ip", "-json", "link") if (name := link["ifname"]).startswith("ing")},
        "nft list ruleset": set(_elements(_listed("nft", "--json", "list", "ruleset")["nftables"])),
        "dmsetup ls": {
            line.split()[0] for line in lab_run("dmsetup", "ls", code=None).splitlines() if line.startswith("ingle-")
        },
        "losetup": set(loop_files()),
        "pgrep qemu": set(lab_run("pgrep", "-r", "D,R,S,T", "-u", user, "qemu", code=None).split()),
        "/run/ingle": _tree("/run/ingle", "*", "server/*", "server/vms/*"),
        "/run/ingle-helper": _tree("/run/ingle-helper", "*", "private/*"),
        "/run/ingle-helper-dm": _tree("/run/ingle-helper-dm", "*", "private/*"),
        "/dev/ingle": _tree("/dev/ingle", "*"),
        "/var/lib/ingle/vms": _tree("/var/lib/ingle/vms", "*"),
    }


def loop_files() -> Iterable[str]:
    """The files behind all loop devices. Not by their names there: those are of the helper's own view of the machine,
    which goes with it."""
    listed = lab_run("losetup", "--json", "--list", "--output", "BACK-INO,BACK-MAJ:MIN,BACK-FILE")
    files = {_identity(path): str(path) for path in (*STATE.glob("images/*/*"), *STATE.glob("vms/*/*"))}
    for each in json.loads(listed or '{"loopdevices": []}')["loopdevices"]:
        yield files.get((int(each["back-ino"]), each["back-maj:min"].strip()), f"not there: {each['back-file']}")


def _identity(path: Path) -> tuple[int, str]:
    status = path.stat()
    return status.st_ino, f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"


def what_the_store_says(vms: Sequence[dict[str, Any]]) -> Things:
    """The same, as it follows from `vm list --json` while helpers have no spare taps."""
    running = [vm for vm in vms if vm["state"] in _RUNNING]
    connected = {int(IPv4Address(vm["address"])) - _POOL: vm for vm in running if vm["address"]}
    mapped = [vm for vm in running if vm["disk_backend"] == "dm-snapshot"]
    networks = {slot >> 8 for slot in connected}
    helper = {"helper.sock", "helper.sock.lock", "journal", "private", "private/grpc.sock"}
    return {
        "ip link": {f"ingb{network}" for network in networks} | {f"ingt{slot}" for slot in connected},
        "nft list ruleset": {
            *(element for network in networks for element in _of_network(network)),
            *(element for slot, vm in connected.items() for element in _of_vm(slot, vm)),
            *(f"ways {name}" for name in _ways() if any(vm["nat"] or vm["ports"] for vm in connected.values())),
        },
        "dmsetup ls": {f"ingle-{vm['id']}{part}" for vm in mapped for part in ("", "-base")},
        "losetup": {
            *(f"{STATE}/vms/{vm['id']}/disk.cow" for vm in mapped),
            *(f"{STATE}/images/{vm['image_id']}/rootfs.ext4" for vm in mapped),
        },
        "pgrep qemu": {str(vm["pid"]) for vm in running},
        "/run/ingle": {
            *("api.sock", "api.sock.lock", "server", "server/vms"),
            *(f"server/vms/{vm['id']}" for vm in running),
        },
        "/run/ingle-helper": {*helper, "forwarding"},
        "/run/ingle-helper-dm": helper,
        "/dev/ingle": {vm["id"] for vm in mapped},
        "/var/lib/ingle/vms": {vm["id"] for vm in vms},
    }


def _ways() -> Iterable[str]:
    """The host's own interfaces, which lead to VMs alone: it forwards nothing else."""
    for link in _listed("ip", "-json", "link"):
        if link["ifname"] != "lo" and not link["ifname"].startswith("ing") and "master" not in link:
            yield link["ifname"]


def _of_network(network: int) -> Iterable[str]:
    yield f"within ingb{network} ingb{network}"
    for version, gateway in (4, f"10.213.{network}.1"), (6, _ipv6(network << 8 | 1)):
        for protocol in ("tcp", "udp"):
            yield f"services{version} ingb{network} {gateway} {protocol} 53 10053"


def _of_vm(slot: int, vm: dict[str, Any]) -> Iterable[str]:
    tap, mac = f"ingt{slot}", f"02:69:6e:67:{slot >> 8:02x}:{slot & 255:02x}"
    # Of the MAC, as every kernel makes it.
    link_local = f"fe80::69:6eff:fe67:{slot:x}"
    yield f"macs {tap} {mac}"
    for version, address in (4, vm["address"]), (6, _ipv6(slot)):
        yield f"bound{version} ingb{slot >> 8} {address}"
        yield f"sources{version} {tap} {mac} {address}"
        if vm["nat"]:
            yield f"nat{version} {address}"
        for port in vm["ports"]:
            yield f"ports{version} {port['protocol']} {port['host_port']} {address} {port['vm_port']}"
            yield f"open{version} {address} {port['protocol']} {port['vm_port']}"
    yield f"sources6 {tap} {mac} {link_local}"
    yield f"targets6 {tap} 0x{0xFE80 << 112 | 0x0069_6EFF_FE67_0000 | slot:032x}"
    yield f"targets6 {tap} 0x{0xFD69_6E67_6C65 << 80 | (slot >> 8) << 64 | slot & 255:032x}"


def _ipv6(slot: int) -> str:
    network, host = slot >> 8, slot & 255
    return f"fd69:6e67:6c65:{network:x}::{host:x}" if network else f"fd69:6e67:6c65::{host:x}"


def _elements(ruleset: Iterable[dict[str, Any]]) -> Iterable[str]:
    """Those of our tables' sets and maps, each after its set's name."""
    for item in ruleset:
        found = item.get("set") or item.get("map")
        if found and found["table"] == "ingle" and found["name"] != "askers":  # which packets make
            yield from (" ".join([found["name"], *_words(element)]) for element in found.get("elem", ()))


def _words(element: Any) -> Iterable[str]:
    match element:
        case {"concat": parts} | [*parts]:
            return [word for part in parts for word in _words(part)]
    return [str(element)]


def _listed(*argv: str) -> Any:
    return json.loads(lab_run(*argv))


def _tree(root: str, *patterns: str) -> set[str]:
    return {str(path.relative_to(root)) for pattern in patterns for path in Path(root).glob(pattern)}

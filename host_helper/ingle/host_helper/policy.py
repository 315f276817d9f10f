"""What the helper may do, said by root in one file.

The file must belong to root, as must its directory, and nobody else may write to either: whoever can change it is root
already. An unknown key is an error that names the nearest known one.
"""

import difflib
import os
import pwd
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

IPV4_POOL = IPv4Network("10.213.0.0/16")
IPV6_POOL = IPv6Network("fd69:6e67:6c65::/48")
_MOST_IDS = 2**32 - 2  # (uid_t) -1 means "no change" to chown(2)


class BadPolicy(Exception):
    """The policy can't be used; the message says which file, why, and what is allowed."""


class BadPool(Exception):
    """A pool that was asked for can't be had; the message says which, and why."""


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from `first` to `last`, both included."""

    first: int
    last: int

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.first <= number <= self.last

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"


@dataclass(frozen=True, slots=True)
class Policy:
    """The file's keys, checked. Only `uid` and `gid` have no default: they come from `user`."""

    user: str
    """The API server's: owner of every tap, and the only one who may call."""
    uid: int
    gid: int
    state_root: Path = Path("/var/lib/ingle")
    """Below it: vms/ID/…, images/ID/…"""
    ipv4_pool: IPv4Network = IPV4_POOL
    """A /24 for each network, gateway .1, VMs .2 to .254."""
    ipv6_pool: IPv6Network | None = IPV6_POOL
    """A /64 for each network; None: no IPv6."""
    max_taps: int = 1024
    spare_taps: int = 16
    """Taps kept for reuse, because removing one costs much more than making one."""
    vm_uids: Range = Range(2_000_000, 2_065_535)
    """Who may own a VM's files beside the API server."""
    publish_ports: Range = Range(1024, 65535)
    """The host's ports that may be published."""
    max_devices: int = 256
    max_device_bytes: int = 4 << 40

    @property
    def pools(self) -> list[IPv4Network | IPv6Network]:
        """One of IPv4, and one of IPv6 if there is one."""
        return [self.ipv4_pool] if self.ipv6_pool is None else [self.ipv4_pool, self.ipv6_pool]


def load(path: Path) -> Policy:
    """Read and check the policy. Raises BadPolicy."""
    text = _read(path)
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        raise BadPolicy(f"{path}: {error}") from None
    return parse(values, str(path))


def parse(values: Mapping[str, object], origin: str) -> Policy:
    """Check what a policy file holds. Raises BadPolicy that begins with `origin`."""
    for key in values:
        if key not in _PARSERS:
            nearest = difflib.get_close_matches(key, _PARSERS, n=1, cutoff=0.0)[0]
            raise BadPolicy(f"{origin}: unknown key {key!r}; did you mean {nearest!r}? known: {', '.join(_PARSERS)}")
    if "user" not in values:
        raise BadPolicy(f"{origin}: no 'user'; add: user = \"ingle\"")
    parsed: dict[str, Any] = {}
    for key, value in values.items():
        try:
            parsed[key] = _PARSERS[key](value)
        except ValueError as error:
            raise BadPolicy(f"{origin}: {key} = {value!r}: {error}") from None
    entry = pwd.getpwnam(parsed["user"]) if not parsed["user"].isdigit() else _numeric(parsed["user"])
    if entry.pw_uid == 0:
        raise BadPolicy(f"{origin}: user = {parsed['user']!r}: the API server never runs as root; name its own user")
    policy = Policy(uid=entry.pw_uid, gid=entry.pw_gid, **parsed)
    if policy.uid in policy.vm_uids:
        raise BadPolicy(f"{origin}: vm_uids: {policy.vm_uids} has the API server's own uid {policy.uid} in it")
    return policy


def pool_of(text: str) -> IPv4Network | IPv6Network:
    """A pool as the policy's keys take it. Raises BadPool that says what is allowed."""
    parse_pool = _ipv6 if ":" in text else _ipv4
    try:
        pool = parse_pool(text)
    except ValueError as error:
        raise BadPool(f"{text!r} is no pool for VMs: {error}") from None
    assert pool is not None
    return pool


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadPolicy(f"{path}: {error.strerror}; `sudo ingle system install` writes it") from None
    with open(descriptor, encoding="utf-8") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadPolicy(f"{path} is not a regular file")
        _check_only_root_writes(path, status)
        _check_only_root_writes(path.parent, path.parent.stat())
        try:
            return file.read()
        except ValueError:
            raise BadPolicy(f"{path} is not UTF-8") from None


def _check_only_root_writes(path: Path, status: os.stat_result) -> None:
    if status.st_uid != 0:
        raise BadPolicy(f"{path} belongs to uid {status.st_uid}, not to root; chown root {path}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BadPolicy(f"{path} can be written to by others than root; chmod go-w {path}")


def _numeric(text: str) -> pwd.struct_passwd:
    """A user that may have no entry: its group is then its own."""
    uid = int(text)
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return pwd.struct_passwd(("", "x", uid, uid, "", "/", ""))


def _user(value: object) -> str:
    name = str(value)
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise ValueError("a user's name or number is allowed")
    if name.isdigit():
        if int(name) > _MOST_IDS:
            raise ValueError(f"at most {_MOST_IDS} is allowed")
        return name
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise ValueError("there is no such user") from None
    return name


def _absolute_path(value: object) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or ".." in Path(value).parts:
        raise ValueError("an absolute path without '..' is allowed")
    return Path(value)


def _ipv4(value: object) -> IPv4Network:
    pool = IPv4Network(_text(value))
    if not 16 <= pool.prefixlen <= 24 or not pool.is_private:
        raise ValueError("a private network of /16 to /24 is allowed")
    return pool


def _ipv6(value: object) -> IPv6Network | None:
    if value == "":
        return None
    pool = IPv6Network(_text(value))
    if pool.prefixlen != 48 or not pool.subnet_of(IPv6Network("fc00::/7")):
        raise ValueError('a unique local network of /48 is allowed, or "" for no IPv6')
    return pool


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text in quotes is allowed")
    return value


def _number(least: int, most: int) -> Any:
    def parse_number(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a whole number of {least} to {most} is allowed")
        return value

    return parse_number


def _range(least: int, most: int) -> Any:
    number = _number(least, most)

    def parse_range(value: object) -> Range:
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError("[FIRST, LAST] is allowed")
        first, last = map(number, value)
        if first > last:
            raise ValueError("FIRST comes before LAST")
        return Range(first, last)

    return parse_range


_PARSERS: Mapping[str, Any] = {
    "user": _user,
    "state_root": _absolute_path,
    "ipv4_pool": _ipv4,
    "ipv6_pool": _ipv6,
    "max_taps": _number(1, 65536),
    "spare_taps": _number(0, 1024),
    "vm_uids": _range(1000, _MOST_IDS),
    "publish_ports": _range(1, 65535),
    "max_devices": _number(0, 4096),
    "max_device_bytes": _number(4096, 1 << 60),
}

assert {item.name for item in fields(Policy) if item.default is not MISSING} | {"user"} == set(_PARSERS)

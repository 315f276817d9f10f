"""Bridges and taps through rtnetlink. Makes and removes only interfaces with our name and our group.

Not for several threads at once: pyroute2 has an event loop of its own in each.
"""

import errno
import logging
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ingle.host_helper import neighbours, tun
from ingle.host_helper.errors import InUse, KernelRefused
from ingle.host_helper.names import (
    DOOMED_GROUP,
    OUR_GROUP,
    Addresses,
    bridge_name,
    is_our_name,
    link_local,
    mac,
    network_of,
    tap_name,
)
from ingle.host_helper.policy import Policy

log = logging.getLogger(__name__)

_IFF_UP = 1  # linux/if.h
_IFA_F_NODAD = 0x02  # linux/if_addr.h
_NOBODY = 0  # a parked tap is root's
_GONE = {errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO}

# IN6_ADDR_GEN_MODE_NONE: no link-local address, so no noise from the host's side of a tap.
_QUIET = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]}

_LOOPBACK = 1  # its index, in every network namespace


@dataclass(frozen=True, slots=True)
class Link:
    """What the kernel says of an interface."""

    name: str
    index: int
    kind: str
    group: int
    master: int
    up: bool
    owner: int  # of a tap

    @property
    def ours(self) -> bool:
        """Whether we made it."""
        return is_our_name(self.name) and self.group in {OUR_GROUP, DOOMED_GROUP} and self.kind in {"tun", "bridge"}


class Links:
    """The kernel's interfaces. Every method is idempotent; raises InUse, Missing, KernelRefused."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._addresses = Addresses.of(policy)
        self._netlink = IPRoute()
        self._parked: set[int] = set()
        self._known: dict[str, int] = {}  # indexes of interfaces that were seen to be ours, and right

    def close(self) -> None:
        """Interfaces stay."""
        self._netlink.close()

    @property
    def parked(self) -> int:
        """Taps kept for reuse."""
        return len(self._parked)

    def ours(self) -> dict[str, Link]:
        """Every interface that we made, by name. Costs a third of a millisecond for each interface of the host."""
        links = (_link(message) for message in self._ask("get_links"))
        return {link.name: link for link in links if link.ours}

    @property
    def forwarding(self) -> bool:
        """Whether the host forwards IPv4 packets: the loopback interface follows net.ipv4.ip_forward."""
        return bool(self._settings(_LOOPBACK, "AF_INET")["forwarding"])

    def ensure_bridge(self, network: int) -> None:
        """There is the bridge, up, with its addresses."""
        name = bridge_name(network)
        index = _index(name)
        if index is None:
            # The group is set by the same message: there is no instant at which the bridge isn't known as ours.
            gateway = mac(self._addresses.gateway(network))
            self._link("add", ifname=name, kind="bridge", group=OUR_GROUP, address=gateway, br_mcast_snooping=0)
            index = _index(name)
            assert index is not None
        elif self._known.get(name) == index:
            return
        else:
            self._check_ours(index, "bridge")
        self._set_up_bridge(network, index)
        self._known[name] = index

    def _set_up_bridge(self, network: int, index: int) -> None:
        gateway = self._addresses.gateway(network)
        if self._addresses.pool6 is not None:
            self._link("set", index=index, IFLA_AF_SPEC=_QUIET)
        self._link("set", index=index, address=mac(gateway), state="up")
        self._ask("addr", "replace", index=index, address=str(self._addresses.ipv4(gateway)), prefixlen=24)
        ipv6 = self._addresses.ipv6(gateway)
        if ipv6 is not None and self._has_ipv6(bridge_name(network)):
            self._ask("addr", "replace", index=index, address=str(ipv6), prefixlen=64, flags=_IFA_F_NODAD)

    def delete_bridge(self, network: int) -> None:
        """There is no such bridge of ours."""
        self._forget_parked(slot for slot in self._parked if network_of(slot) == network)
        self._delete(bridge_name(network))

    def ensure_tap(self, slot: int) -> None:
        """There is the tap, the policy's uid may open it, and its bridge leads to it."""
        name = tap_name(slot)
        index = _index(name)
        if slot in self._parked and self._unpark(slot):
            pass
        elif index is None:
            index = self._create_tap(slot)
        elif self._known.get(name) == index:
            return
        else:
            self._check_tap(slot, index)
        self._tell_neighbours(slot)
        self._known[name] = index or 0

    def release_tap(self, slot: int) -> None:
        """Nobody can use the tap any more: it is parked, or deleted when somebody still has it open."""
        name = tap_name(slot)
        index = _index(name)
        if index is None or not self._is_ours(name, index):
            self._parked.discard(slot)
            return
        self._forget_neighbours(slot)
        try:
            with tun.attached(name) as descriptor:
                tun.give(descriptor, _NOBODY)
        except OSError as error:
            if error.errno not in _GONE:
                log.warning("deleted while open", extra={"interface": name, "why": error.strerror})
                self._delete(name)
            return
        self._parked.add(slot)

    def trim(self, limit: int) -> None:
        """Delete parked taps beyond `limit`, all at once."""
        self._forget_parked(sorted(self._parked)[limit:])

    def keep_only(self, names: Iterable[str]) -> None:
        """Delete every interface of ours but these, and trust none of what was known about these."""
        wanted = set(names)
        self._parked.clear()
        self._known.clear()
        self._delete_all(link.index for name, link in self.ours().items() if name not in wanted)

    def _create_tap(self, slot: int) -> int:
        name = tap_name(slot)
        try:
            with tun.created(name) as descriptor:
                index = _index(name)
                assert index is not None
                quiet = {} if self._addresses.pool6 is None else {"IFLA_AF_SPEC": _QUIET}
                self._link("set", index=index, group=OUR_GROUP, **quiet)
                tun.give(descriptor, self._policy.uid)
                # From here on it stays when we are killed, and is known as ours by name and group.
                tun.keep(descriptor)
                try:
                    self._link("set", index=index, master=self._bridge(slot), state="up")
                except BaseException:
                    self._delete_all([index])
                    raise
                return index
        except FileExistsError:
            raise InUse(f"interface {name} is there and not ours", f"ip link delete {name}") from None
        except OSError as error:
            raise KernelRefused(f"tap {name}: {error.strerror}") from error

    def _check_tap(self, slot: int, index: int) -> None:
        """Make one that is there what it should be."""
        link = self._check_ours(index, "tun")
        if link.owner != self._policy.uid:
            try:
                with tun.attached(link.name) as descriptor:
                    tun.give(descriptor, self._policy.uid)
            except OSError as error:
                raise InUse(f"{link.name} is open and belongs to uid {link.owner}: {error.strerror}") from error
        bridge = self._bridge(slot)
        if not link.up or link.master != bridge or link.group != OUR_GROUP:
            self._link("set", index=link.index, group=OUR_GROUP, master=bridge, state="up")

    def _unpark(self, slot: int) -> bool:
        self._parked.discard(slot)
        try:
            with tun.attached(tap_name(slot)) as descriptor:
                tun.give(descriptor, self._policy.uid)
        except OSError:
            return False
        return True

    def _tell_neighbours(self, slot: int) -> None:
        """Who has a VM's addresses is known, not asked for: nothing stale from an earlier VM with the same slot."""
        neighbours.add(self._bridge(slot), mac(slot), self._neighbours(slot))

    def _forget_neighbours(self, slot: int) -> None:
        bridge = _index(bridge_name(network_of(slot)))
        if bridge is not None:
            neighbours.remove(bridge, mac(slot), self._neighbours(slot))

    def _neighbours(self, slot: int) -> list[str]:
        ipv6 = self._addresses.ipv6(slot)
        if ipv6 is None or not self._has_ipv6(bridge_name(network_of(slot))):
            return [str(self._addresses.ipv4(slot))]
        return [str(self._addresses.ipv4(slot)), str(ipv6), str(link_local(slot))]

    def _bridge(self, slot: int) -> int:
        name = bridge_name(network_of(slot))
        index = _index(name)
        if index is None:
            raise KernelRefused(f"somebody removed bridge {name}", "Reconcile makes it again")
        return index

    def _check_ours(self, index: int, kind: str) -> Link:
        link = self._get(index)
        if not link.ours or link.kind != kind:
            raise InUse(f"interface {link.name} is there and not ours", f"ip link delete {link.name}")
        return link

    def _is_ours(self, name: str, index: int) -> bool:
        return self._known.get(name) == index or self._get(index).ours

    def _get(self, index: int) -> Link:
        (message,) = self._ask("get_links", index)
        return _link(message)

    def _forget_parked(self, slots: Iterable[int]) -> None:
        chosen = list(slots)
        self._parked.difference_update(chosen)
        indexes = (_index(tap_name(slot)) for slot in chosen)
        self._delete_all(index for index in indexes if index is not None)

    def _delete(self, name: str) -> None:
        """What isn't ours stays."""
        index = _index(name)
        if index is not None and self._is_ours(name, index):
            self._delete_all([index])
        self._known.pop(name, None)

    def _delete_all(self, indexes: Iterable[int]) -> None:
        """Many cost little more than one when the kernel is told once, by their group."""
        doomed = list(indexes)
        if len(doomed) == 1:
            self._link("del", index=doomed[0])
        elif doomed:
            for index in doomed:
                self._link("set", index=index, group=DOOMED_GROUP)
            self._link("del", group=DOOMED_GROUP)

    def _has_ipv6(self, interface: str) -> bool:
        index = _index(interface)
        if index is None:
            return False
        settings = self._settings(index, "AF_INET6")
        conf = None if settings is None else settings.get_attr("IFLA_INET6_CONF")
        return conf is not None and not conf["disable_ipv6"]

    def _settings(self, index: int, family: str) -> Any:
        """An interface's, as below /proc/sys/net, which the helper's unit doesn't have. None: no such protocol."""
        (message,) = self._ask("get_links", index)
        return message.get_attr("IFLA_AF_SPEC").get_attr(family)

    def _link(self, verb: str, **what: Any) -> None:
        self._ask("link", verb, unless_gone=verb == "del", **what)

    def _ask(self, method: str, *arguments: Any, unless_gone: bool = False, **what: Any) -> tuple[Any, ...]:
        """`unless_gone`: what isn't there needn't be removed."""
        try:
            return tuple(getattr(self._netlink, method)(*arguments, **what))
        except NetlinkError as error:
            if unless_gone and error.code in _GONE:
                return ()
            raise KernelRefused(f"{method} {arguments} {what}: {error.args[1]}") from error


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info is not None else None
    data = info.get_attr("IFLA_INFO_DATA") if kind == "tun" else None
    owner = data.get_attr("IFLA_TUN_OWNER") if data is not None else None
    return Link(
        name=message.get_attr("IFLA_IFNAME"),
        index=message["index"],
        kind=kind or "",
        group=message.get_attr("IFLA_GROUP") or 0,
        master=message.get_attr("IFLA_MASTER") or 0,
        up=bool(message["flags"] & _IFF_UP),
        owner=-1 if owner is None else owner,
    )


def _index(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None

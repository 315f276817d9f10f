"""Forwarding of IPv4 for VMs alone, on a host that forwards none.

What a VM sends comes in by its bridge, and what it gets by any other interface of the host; the kernel forwards what
comes in by an interface whose own switch is on. Where the host's switch for all (net.ipv4.ip_forward) is off we turn on
those of our bridges and, while somebody has NAT or a port, of the others; and have the firewall drop what those would
lead from one of the host's networks to another: that is none of our business. The switch for all stays as it is, so
that others who want it on, Docker for one, see that it is off, and do what they do then.
"""

import json
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from ingle.host_helper import interfaces, offload, rtnetlink, settings
from ingle.host_helper.firewall import Firewall
from ingle.host_helper.interfaces import Interface
from ingle.host_helper.names import BRIDGE_PREFIX, is_our_name

log = logging.getLogger(__name__)

_LOOPBACK = "lo"


class Forwarding:
    """The switches, and which of them are on because of us: that is remembered in a file which a boot empties."""

    def __init__(self, firewall: Firewall, memory: Path) -> None:
        self._firewall = firewall
        self._memory = memory
        self._wanted = False
        self._stale = True
        firewall.ways = _remembered(memory)

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` when interfaces have come or the host's own switch was used; `arrange` is due then."""
        self._memory.touch()
        netlink = rtnetlink.listener()
        threading.Thread(target=self._listen, args=(netlink, changed), daemon=True, name="forwarding").start()

    def arrange(self, wanted: bool | None = None) -> None:
        """Have what comes from outside forwarded to VMs if that is `wanted` (None: as before). Raises KernelRefused."""
        if wanted is None:
            wanted = self._wanted
        if wanted == self._wanted and not self._stale:
            return
        self._stale = False
        try:
            self._arrange(wanted)
        except BaseException:
            self._stale = True
            raise
        self._wanted = wanted

    def _arrange(self, wanted: bool) -> None:
        links = {link.name: link for link in interfaces.everyone()}
        for link in links.values():
            if is_our_name(link.name) and link.name.startswith(BRIDGE_PREFIX) and not link.forwards:
                interfaces.change(link.index, interfaces.forwarding(True))
        ours = {name for name in self._firewall.ways if name in links and links[name].forwards}
        if settings.forwards_ipv4():
            self._guard(set())  # whatever is forwarded is forwarded by the host's own will
            return
        if not wanted:
            for name in ours:
                interfaces.change(links[name].index, interfaces.forwarding(False))
            self._guard(set())
            return
        closed = [link for link in links.values() if _is_way(link) and not link.forwards]
        self._guard(ours | {link.name for link in closed})  # first: what is open and not guarded leads anywhere
        for link in closed:
            offload.disable_receive(link.name)
            interfaces.change(link.index, interfaces.forwarding(True))

    def _guard(self, names: set[str]) -> None:
        if names == self._firewall.ways:
            return
        self._memory.write_text(json.dumps(sorted(names)))
        self._firewall.guard(frozenset(names))

    def _listen(self, netlink: socket.socket, changed: Callable[[], None]) -> None:
        while True:
            try:
                kinds = rtnetlink.heard(netlink)
            except OSError as error:
                log.warning("what changes on the host is heard of later: %s", error)
                kinds = None  # too much at once: anything may have
            if kinds is None or any(_matters(kind, body) for kind, body in kinds):
                self._stale = True
                changed()


def _matters(kind: int, body: bytes) -> bool:
    name = interfaces.name_of_news(kind, body)
    return settings.is_news_of_all(kind, body) or (name is not None and not is_our_name(name))


def _is_way(link: Interface) -> bool:
    return link.name != _LOOPBACK and not is_our_name(link.name) and not link.master


def _remembered(memory: Path) -> frozenset[str]:
    try:
        return frozenset(map(str, json.loads(memory.read_text())))
    except (OSError, ValueError):
        return frozenset()

"""Bridges and taps. Makes and removes only interfaces with our name and our group."""

import logging
import socket
from collections.abc import Iterable

from ingle.host_helper import interfaces, neighbours, tun
from ingle.host_helper.errors import InUse, KernelRefused
from ingle.host_helper.interfaces import Interface
from ingle.host_helper.names import (
    DOOMED_GROUP,
    LOOSE,
    OUR_GROUP,
    OUR_GROUPS,
    Addresses,
    bridge_name,
    is_our_name,
    link_local,
    mac,
    network_of,
    tap_name,
)
from ingle.host_helper.policy import Policy
from ingle.host_helper.settings import has_ipv6

log = logging.getLogger(__name__)

_NOBODY = 0  # a parked tap is root's


class Links:
    """The kernel's interfaces. Every method is idempotent; raises InUse, Missing, KernelRefused."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._addresses = Addresses.of(policy)
        self._parked: set[int] = set()
        self._known: dict[str, int] = {}  # indexes of interfaces that were seen to be ours, and right

    @property
    def parked(self) -> int:
        """Taps kept for reuse."""
        return len(self._parked)

    def ours(self) -> dict[str, Interface]:
        """Every interface that we made, by name."""
        return {link.name: link for link in interfaces.everyone() if _ours(link)}

    def ensure_bridge(self, network: int) -> None:
        """There is the bridge, up, with its addresses."""
        name = bridge_name(network)
        index = _index(name)
        if index is None:
            # The group is set by the same message: there is no instant at which the bridge isn't known as ours.
            gateway = mac(self._addresses.gateway(network))
            interfaces.add_bridge(name, gateway, OUR_GROUP)
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
        interfaces.change(index, interfaces.address_of(mac(gateway)), *self._quiet, up=True)
        interfaces.change(index, interfaces.forwarding(True))  # what comes from guests is our rules' to judge
        interfaces.add_address(index, self._addresses.ipv4(gateway), 24)
        ipv6 = self._addresses.ipv6(gateway)
        if ipv6 is not None and has_ipv6(bridge_name(network)):
            interfaces.add_address(index, ipv6, 64)

    @property
    def _quiet(self) -> list[bytes]:
        return [] if self._addresses.pool6 is None else [interfaces.QUIET]

    def delete_bridge(self, network: int) -> None:
        """There is no such bridge of ours."""
        self._forget_parked(slot for slot in self._parked if network_of(slot) == network)
        self._delete(bridge_name(network))

    def ensure_tap(self, slot: int) -> None:
        """There is the tap, the policy's uid may open it, and its bridge leads to it, if it has one."""
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
            if error.errno not in interfaces.GONE:
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
                interfaces.change(index, interfaces.in_group(OUR_GROUP), *self._quiet)
                tun.give(descriptor, self._policy.uid)
                # From here on it stays when we are killed, and is known as ours by name and group.
                tun.keep(descriptor)
                try:
                    self._lead(slot, index)
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
        if link.group != OUR_GROUP:
            interfaces.change(link.index, interfaces.in_group(OUR_GROUP))
        self._lead(slot, index)

    def _lead(self, slot: int, index: int) -> None:
        """A bridge leads to the tap. A loose one has none, and is down: the host would take what comes out of it for a
        neighbour's."""
        if slot not in LOOSE:
            interfaces.change(index, interfaces.on_bridge(self._bridge(slot)), up=True)
        elif (link := interfaces.get(index)).up or link.master:
            raise InUse(f"somebody has changed {link.name}, which leads nowhere", f"ip link delete {link.name}")

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
        if slot in LOOSE:
            return
        bridge, ipv4, ipv6 = self._bridge(slot), [str(self._addresses.ipv4(slot))], self._ipv6(slot)
        try:
            neighbours.add(bridge, mac(slot), ipv4 + ipv6)
        except KernelRefused:  # where there is no IPv6 we aren't told before, which would take longer than all of this
            if has_ipv6(bridge_name(network_of(slot))):
                raise
            neighbours.add(bridge, mac(slot), ipv4)

    def _forget_neighbours(self, slot: int) -> None:
        if slot in LOOSE:
            return
        bridge = _index(bridge_name(network_of(slot)))
        if bridge is not None:
            neighbours.remove(bridge, mac(slot), [str(self._addresses.ipv4(slot)), *self._ipv6(slot)])

    def _ipv6(self, slot: int) -> list[str]:
        ipv6 = self._addresses.ipv6(slot)
        return [] if ipv6 is None else [str(ipv6), str(link_local(slot))]

    def _bridge(self, slot: int) -> int:
        name = bridge_name(network_of(slot))
        index = _index(name)
        if index is None:
            raise KernelRefused(f"somebody removed bridge {name}", "Reconcile makes it again")
        return index

    @staticmethod
    def _check_ours(index: int, kind: str) -> Interface:
        link = interfaces.get(index)
        if not _ours(link) or link.kind != kind:
            raise InUse(f"interface {link.name} is there and not ours", f"ip link delete {link.name}")
        return link

    def _is_ours(self, name: str, index: int) -> bool:
        return self._known.get(name) == index or _ours(interfaces.get(index))

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

    @staticmethod
    def _delete_all(indexes: Iterable[int]) -> None:
        """Many cost little more than one when the kernel is told once, by their group."""
        doomed = list(indexes)
        if len(doomed) == 1:
            interfaces.delete(doomed[0])
        elif doomed:
            for index in doomed:
                interfaces.change(index, interfaces.in_group(DOOMED_GROUP))
            interfaces.delete_group(DOOMED_GROUP)


def _ours(link: Interface) -> bool:
    """Whether we made it."""
    return is_our_name(link.name) and link.group in OUR_GROUPS and link.kind in {"tun", "bridge"}


def _index(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None

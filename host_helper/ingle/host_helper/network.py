"""The network part: from one state of it to the next, in the kernel."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper.choosing import find_overlaps
from ingle.host_helper.coexistence import pass_others
from ingle.host_helper.errors import HelperError, InUse
from ingle.host_helper.firewall import Firewall
from ingle.host_helper.forwarding import Forwarding
from ingle.host_helper.links import Links
from ingle.host_helper.messages import network_message, port_message, tap_message
from ingle.host_helper.names import Addresses, bridge_name, tap_name
from ingle.host_helper.nft import open_nft
from ingle.host_helper.obstacles import find_obstacles
from ingle.host_helper.policy import Policy
from ingle.host_helper.ports import is_served
from ingle.host_helper.state import Nat, Network, Published, Resource, State, Tap

log = logging.getLogger(__name__)


class NetworkPart:
    """Implements part.Part: bridges, taps and the firewall."""

    number: "pb.Part.ValueType" = pb.PART_NETWORK

    def __init__(self, policy: Policy, runtime: Path) -> None:
        self._policy = policy
        self._addresses = Addresses.of(policy)
        self._links = Links(policy)
        self._nft = open_nft()
        self._firewall = Firewall(self._nft, self._addresses, policy.uid)
        self._forwarding = Forwarding(self._firewall, runtime / "forwarding")

    def close(self) -> None:
        """Spare taps go, the rest stays."""
        self._links.trim(0)

    def check(self, old: State, new: State) -> None:
        added = new.beyond(old)
        for resource in added:
            # The server holds ports that are led to VMs, also before they are.
            if isinstance(resource, Published) and is_served(
                resource.protocol, resource.host_port, resource.address, but=self._policy.uid
            ):
                name = f"{resource.host_port}/{resource.protocol.value}"
                raise InUse(f"a program of the host serves port {name}", "take another port")

    def watch(self, changed: Callable[[], None]) -> None:
        self._forwarding.watch(changed)

    def change(self, old: State, new: State, named: Sequence[Resource]) -> None:
        """The firewall comes first: what it doesn't know is dropped, so a tap never can more than its rules allow."""
        added, removed = new.beyond(old), old.beyond(new)
        self._firewall.change(old, new)
        for resource in removed:
            if isinstance(resource, Tap):
                self._links.release_tap(resource.slot)
        for resource in dict.fromkeys([*added, *named]):
            self._ensure(resource)
        networks = [each for each in removed if isinstance(each, Network) and new.network(each.number) is None]
        for network in networks:
            self._links.delete_bridge(network.number)
        if networks or any(isinstance(each, Network) for each in added):
            pass_others(self._nft, wanted=bool(new.all(Network)))
        self._forwarding.arrange(_leads_out(new))

    def settle(self, state: State) -> None:
        failures: list[HelperError] = []
        networks, taps = state.all(Network), state.all(Tap)
        names = [bridge_name(each.number) for each in networks] + [tap_name(each.slot) for each in taps]
        try:
            if len(state) > 0:
                self._firewall.replace(state)
            self._links.keep_only(names)
            self._forwarding.arrange(_leads_out(state))
            if len(state) == 0:
                self._firewall.remove()
        except HelperError as error:
            failures.append(error)
        resources: list[Resource] = [*networks, *taps]
        for resource in resources:
            try:
                self._ensure(resource)
            except HelperError as error:
                failures.append(error)
        pass_others(self._nft, wanted=bool(networks))
        for failure in failures:
            log.error("not settled: %s", failure.message)
        if failures:
            raise failures[0]

    def describe(self, named: Sequence[Resource], state: State) -> pb.ApplyResponse:
        return pb.ApplyResponse(
            networks=[network_message(self._addresses, each) for each in named if isinstance(each, Network)],
            taps=[tap_message(self._addresses, each, state) for each in named if isinstance(each, Tap)],
        )

    def examine(self, state: State) -> pb.ExamineResponse:
        networks, taps = len(state.all(Network)), len(state.all(Tap))
        return pb.ExamineResponse(
            networks=pb.Usage(used=networks, limit=self._addresses.networks),
            taps=pb.Usage(used=taps, limit=self._policy.max_taps),
            obstacles=find_obstacles(self._nft, connected=networks > 0),
        )

    def find_overlaps(self) -> Sequence[pb.Overlap]:
        return find_overlaps(self._policy)

    def list(self, state: State) -> pb.ListResponse:
        present = self._links.ours()
        return pb.ListResponse(
            networks=[
                network_message(self._addresses, each, bridge_name(each.number) in present)
                for each in state.all(Network)
            ],
            taps=[tap_message(self._addresses, each, state, tap_name(each.slot) in present) for each in state.all(Tap)],
            ports=[port_message(each, state) for each in state.all(Published)],
            parked_taps=self._links.parked,
        )

    @property
    def untidy(self) -> bool:
        return self._links.parked > self._policy.spare_taps

    def tidy(self) -> None:
        """Keep no more spare taps than the policy allows: removing many at once costs little more than one. And forward
        for VMs where the host has changed."""
        self._links.trim(self._policy.spare_taps)
        self._forwarding.arrange()

    def _ensure(self, resource: Resource) -> None:
        match resource:
            case Network(number):
                self._links.ensure_bridge(number)
            case Tap(slot, _):
                self._links.ensure_tap(slot)


def _leads_out(state: State) -> bool:
    return any(isinstance(resource, (Nat, Published)) for resource in state)

"""HostNetwork through the root helper: one call for everything that a start takes."""

from collections.abc import Collection
from pathlib import Path

from ingle.api_server.adapters.helper.client import PATIENCE_SECONDS, HelperClient
from ingle.api_server.adapters.helper.held import HeldPorts, is_relayed
from ingle.api_server.host.forwarding import SYSCTLS, forwards_ipv6
from ingle.api_server.model.errors import Conflict, IngleError, Reason
from ingle.api_server.model.network import (
    DNS_PORT,
    FIRST_HOST,
    LAST_HOST,
    MOST_NETWORKS,
    SLOTS_PER_NETWORK,
    Protocol,
)
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.activation import Waken, nobody
from ingle.api_server.ports.network import Link
from ingle.helper.v1 import helper_pb2 as pb

_PREFIX_LENGTH = 24
_NOWHERE = range(MOST_NETWORKS * SLOTS_PER_NETWORK + FIRST_HOST, MOST_NETWORKS * SLOTS_PER_NETWORK + LAST_HOST + 1)
"""The helper's slots of taps in no network."""

_PROTOCOLS = {Protocol.TCP: pb.PROTOCOL_TCP, Protocol.UDP: pb.PROTOCOL_UDP}


class HelperNetwork:
    """Implements ports.network.HostNetwork over the helper's socket. `sysctls`: as of host.forwarding."""

    def __init__(self, socket: Path, patience: float = PATIENCE_SECONDS, sysctls: Path = SYSCTLS) -> None:
        self._helper = HelperClient(socket, "ingle-helper", patience)
        self._sysctls = sysctls
        self._dns_ports: dict[int, int] = {}
        self._held = HeldPorts(self._waken)
        self.waken: Waken = nobody
        self._nowhere: dict[str, int] = {}

    async def _waken(self, vm_id: str) -> Vm | None:
        return await self.waken(vm_id)

    async def problem(self) -> str:
        try:
            await self._helper.ask(lambda helper: helper.Ping, pb.PingRequest())
        except IngleError as error:
            return error.message
        return ""

    async def connect(self, vm: Vm) -> Link:
        slot, rate = _slot(vm), vm.settings.net_bytes_per_second
        request = pb.ApplyRequest(
            changes=[
                pb.Change(ensure_network=pb.EnsureNetworkRequest(network=slot // SLOTS_PER_NETWORK)),
                pb.Change(create_tap=pb.CreateTapRequest(vm_id=vm.id, slot=slot)),
                pb.Change(set_nat=pb.SetNatRequest(vm_id=vm.id, slot=slot, enabled=vm.settings.nat)),
                pb.Change(limit_tap=pb.LimitTapRequest(vm_id=vm.id, slot=slot, bytes_per_second=rate)),
                *(_led(port, vm) for port in _ports(vm)),
            ]
        )
        made = await self._helper.ask(lambda helper: helper.Apply, request)
        (network,), (tap,) = made.networks, made.taps
        await self._held.hold(vm, tap.ipv4)
        return Link(
            tap.interface,
            tap.mac,
            tap.ipv4,
            _PREFIX_LENGTH,
            network.ipv4_gateway,
            address6=tap.ipv6,
            # Where it would lead nowhere, whoever takes it waits for minutes.
            gateway6=network.ipv6_gateway if forwards_ipv6(self._sysctls) else "",
        )

    def close(self) -> None:
        """Hold no port any more; what the helper has made stays."""
        self._held.close()

    async def lead_dns(self, network: int, port: int) -> None:
        if self._dns_ports.get(network, DNS_PORT) != port:
            wanted = pb.EnsureNetworkRequest(network=network, dns_port=port)
            await self._helper.ask(lambda helper: helper.EnsureNetwork, wanted)
            self._dns_ports[network] = port

    async def disconnect(self, slot: int, vm_id: str) -> None:
        await self._helper.ask(lambda helper: helper.DeleteTap, pb.DeleteTapRequest(vm_id=vm_id, slot=slot))
        self._held.release(vm_id)
        try:
            empty = pb.DeleteNetworkRequest(network=slot // SLOTS_PER_NETWORK)
            await self._helper.ask(lambda helper: helper.DeleteNetwork, empty)
            self._dns_ports.pop(empty.network, None)
        except IngleError as error:
            if error.reason is not Reason.IN_USE:
                raise

    async def connect_nowhere(self, vm_id: str) -> Link:
        slot = self._nowhere.get(vm_id)
        if slot is None:
            slot = next((each for each in _NOWHERE if each not in self._nowhere.values()), None)
            if slot is None:
                raise Conflict(Reason.IN_USE, f"{len(_NOWHERE)} guests are being made or saved at this moment")
            self._nowhere[vm_id] = slot
        tap = (await self._helper.ask(lambda helper: helper.CreateTap, pb.CreateTapRequest(vm_id=vm_id, slot=slot))).tap
        return Link(tap.interface, tap.mac, "", 0, "")

    async def disconnect_nowhere(self, vm_id: str) -> None:
        slot = self._nowhere.get(vm_id)
        if slot is not None:
            await self._helper.ask(lambda helper: helper.DeleteTap, pb.DeleteTapRequest(vm_id=vm_id, slot=slot))
            del self._nowhere[vm_id]

    async def reconcile(self, vms: Collection[Vm]) -> None:
        wanted = pb.ReconcileRequest(
            networks=sorted({_slot(vm) // SLOTS_PER_NETWORK for vm in vms}),
            taps=[
                pb.WantedTap(
                    vm_id=vm.id,
                    slot=_slot(vm),
                    nat=vm.settings.nat,
                    bytes_per_second=vm.settings.net_bytes_per_second,
                )
                for vm in vms
            ],
            ports=[port for vm in vms if vm.asleep_since is None for port in _ports(vm)],
        )
        await self._helper.ask(lambda helper: helper.Reconcile, wanted)
        self._dns_ports.clear()
        self._nowhere.clear()
        await self._held.only(vms)


def _slot(vm: Vm) -> int:
    assert vm.slot is not None
    return vm.slot


def _led(port: pb.PublishedPort, vm: Vm) -> pb.Change:
    """To the VM, or while that is asleep to whoever has the port on this host, which is us."""
    if vm.asleep_since is None:
        return pb.Change(publish_port=pb.PublishPortRequest(port=port))
    return pb.Change(unpublish_port=pb.UnpublishPortRequest(port=port))


def _ports(vm: Vm) -> list[pb.PublishedPort]:
    return [
        pb.PublishedPort(
            vm_id=vm.id,
            slot=_slot(vm),
            protocol=_PROTOCOLS[port.protocol],
            host_port=port.host_port,
            vm_port=port.vm_port,
            address=port.address,
        )
        for port in vm.settings.ports
        if not is_relayed(port)
    ]

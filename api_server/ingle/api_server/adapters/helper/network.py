"""HostNetwork through the root helper: one call for everything that a start takes."""

from collections.abc import Collection
from pathlib import Path

from ingle.api_server.adapters.helper.calls import PATIENCE_SECONDS, Calls
from ingle.api_server.adapters.helper.held import HeldPorts, is_relayed
from ingle.api_server.host.forwarding import SYSCTLS, forwards_ipv6
from ingle.api_server.model.errors import IngleError, Reason
from ingle.api_server.model.network import DNS_PORT, SLOTS_PER_NETWORK, Protocol
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.network import Link
from ingle.helper.v1 import helper_pb2 as pb

_PREFIX_LENGTH = 24
_PROTOCOLS = {Protocol.TCP: pb.PROTOCOL_TCP, Protocol.UDP: pb.PROTOCOL_UDP}


class HelperNetwork:
    """Implements ports.network.HostNetwork over the helper's socket. `sysctls`: as of host.forwarding."""

    def __init__(self, socket: Path, patience: float = PATIENCE_SECONDS, sysctls: Path = SYSCTLS) -> None:
        self._calls = Calls(socket, "ingle-helper", patience)
        self._sysctls = sysctls
        self._dns_ports: dict[int, int] = {}
        self._held = HeldPorts()

    async def problem(self) -> str:
        try:
            await self._calls.make(lambda helper: helper.Ping, pb.PingRequest())
        except IngleError as error:
            return error.message
        return ""

    async def connect(self, vm: Vm) -> Link:
        slot = _slot(vm)
        request = pb.ApplyRequest(
            changes=[
                pb.Change(ensure_network=pb.EnsureNetworkRequest(network=slot // SLOTS_PER_NETWORK)),
                pb.Change(create_tap=pb.CreateTapRequest(vm_id=vm.id, slot=slot)),
                pb.Change(set_nat=pb.SetNatRequest(vm_id=vm.id, slot=slot, enabled=vm.nat)),
                *(pb.Change(publish_port=pb.PublishPortRequest(port=port)) for port in _ports(vm)),
            ]
        )
        made = await self._calls.make(lambda helper: helper.Apply, request)
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
            await self._calls.make(lambda helper: helper.EnsureNetwork, wanted)
            self._dns_ports[network] = port

    async def disconnect(self, slot: int, vm_id: str) -> None:
        await self._calls.make(lambda helper: helper.DeleteTap, pb.DeleteTapRequest(vm_id=vm_id, slot=slot))
        self._held.release(vm_id)
        try:
            empty = pb.DeleteNetworkRequest(network=slot // SLOTS_PER_NETWORK)
            await self._calls.make(lambda helper: helper.DeleteNetwork, empty)
            self._dns_ports.pop(empty.network, None)
        except IngleError as error:
            if error.reason is not Reason.IN_USE:
                raise

    async def reconcile(self, vms: Collection[Vm]) -> None:
        wanted = pb.ReconcileRequest(
            networks=sorted({_slot(vm) // SLOTS_PER_NETWORK for vm in vms}),
            taps=[pb.WantedTap(vm_id=vm.id, slot=_slot(vm), nat=vm.nat) for vm in vms],
            ports=[port for vm in vms for port in _ports(vm)],
        )
        await self._calls.make(lambda helper: helper.Reconcile, wanted)
        self._dns_ports.clear()
        await self._held.only(vms)


def _slot(vm: Vm) -> int:
    assert vm.slot is not None
    return vm.slot


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
        for port in vm.ports
        if not is_relayed(port)
    ]

"""The helper's resources as messages of the contract."""

from functools import lru_cache

from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper.names import LOOSE, Addresses, bridge_name, mac, tap_name
from ingle.host_helper.state import Nat, Network, Protocol, Published, State, Tap

_PROTOCOLS = {Protocol.TCP: pb.PROTOCOL_TCP, Protocol.UDP: pb.PROTOCOL_UDP}


@lru_cache(maxsize=256)
def network_message(addresses: Addresses, network: Network, present: bool = True) -> pb.Network:
    """A network with all that follows from its number."""
    gateway = addresses.gateway(network.number)
    return pb.Network(
        network=network.number,
        interface=bridge_name(network.number),
        ipv4_subnet=str(addresses.subnet4(network.number)),
        ipv4_gateway=str(addresses.ipv4(gateway)),
        ipv6_subnet=str(addresses.subnet6(network.number) or ""),
        ipv6_gateway=str(addresses.ipv6(gateway) or ""),
        present=present,
    )


def tap_message(addresses: Addresses, tap: Tap, state: State, present: bool = True) -> pb.Tap:
    """A tap with all that follows from its slot."""
    leads = tap.slot not in LOOSE
    return pb.Tap(
        vm_id=tap.vm,
        slot=tap.slot,
        interface=tap_name(tap.slot),
        mac=mac(tap.slot),
        ipv4=str(addresses.ipv4(tap.slot)) if leads else "",
        ipv6=str((leads and addresses.ipv6(tap.slot)) or ""),
        nat=Nat(tap.slot) in state,
        present=present,
        bytes_per_second=state.rate(tap.slot),
    )


def port_message(port: Published, state: State) -> pb.PublishedPort:
    """A published port and the VM whose it is."""
    tap = state.tap(port.slot)
    return pb.PublishedPort(
        vm_id=tap.vm if tap else "",
        slot=port.slot,
        protocol=_PROTOCOLS[port.protocol],
        host_port=port.host_port,
        vm_port=port.vm_port,
        address=port.address,
    )

"""What the agent of any VMM's guest is told before anybody can call it."""

import hashlib
import os

from ingle.api_server.model.guest import GuestIdentity, GuestNetwork
from ingle.api_server.model.vm import Init, Vm
from ingle.api_server.ports.disk import BootConfig
from ingle.api_server.ports.network import Link

INTERFACE = "eth0"

Networks = tuple[GuestNetwork, ...]
"""For IPv4, and for IPv6 where there is any."""


def boot_config(
    vm: Vm,
    token: bytes,
    networks: Networks,
    *,
    root_device: str,
    modules_device: str,
    ready_device: str,
    serial_port: str = "",
    vsock_port: int = 0,
) -> BootConfig:
    """The VM's own, and what is the engine's: its devices, and where the agent is to listen."""
    return BootConfig(
        identity=GuestIdentity(
            token=token,
            hostname=vm.name,
            machine_id=machine_id(vm.id),
            networks=networks,
            entropy=os.urandom(64),
            env=vm.settings.environment,
        ),
        root_device=root_device,
        modules_device=modules_device,
        serial_port=serial_port,
        vsock_port=vsock_port,
        ready_device=ready_device,
        image_init=vm.settings.init is Init.IMAGE,
    )


def init_arguments(vm: Vm) -> tuple[str, ...]:
    """What the kernel's command line says to an init of the image's own: its udev must not rename the interface that
    the agent knows, nor its systemd wait for somebody to log in on a console that nobody can type on, or make up a
    machine-id at its first boot."""
    if vm.settings.init is not Init.IMAGE:
        return ()
    return "net.ifnames=0", "systemd.getty_auto=no", f"systemd.machine_id={machine_id(vm.id)}"


def machine_id(vm_id: str) -> str:
    """A VM's for life, as in machine-id(5): a function of its id, so that it need not be stored."""
    return hashlib.sha256(f"ingle machine-id {vm_id}".encode()).hexdigest()[:32]


def user_mac(vm_id: str) -> str:
    """A hardware address for a VM that is alone in its network."""
    return "52:54:00:" + hashlib.sha256(f"ingle mac {vm_id}".encode()).digest()[:3].hex(":")


def shared_networks(link: Link) -> Networks:
    """Of a VM in a network that others share: its gateway answers for names. None of one that is nowhere."""
    if not link.address:
        return ()
    ipv4 = GuestNetwork(INTERFACE, f"{link.address}/{link.prefix_length}", link.gateway, (link.gateway,), link.mac)
    if not link.address6:
        return (ipv4,)
    return ipv4, GuestNetwork(INTERFACE, f"{link.address6}/64", link.gateway6, ())

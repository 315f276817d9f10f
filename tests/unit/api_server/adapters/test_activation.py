"""Ports of VMs that hibernate, at which somebody waits."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from free_ports import free_port
from ingle.api_server.adapters.activation import LocalActivationSockets
from ingle.api_server.adapters.helper.held import HeldPorts
from ingle.api_server.host.relay import PLACES_EACH
from ingle.api_server.model.network import Protocol, PublishedPort
from ingle.api_server.model.vm import Acceleration, LiveVmm, Vm
from unit.api_server.vmms import NOW, VM


class Guest:
    """Answers at whatever port it is given, once it is awake."""

    def __init__(self) -> None:
        self.awake = asyncio.Event()
        self.can_wake = True
        self.vm = replace(VM, vmm=LiveVmm(1, 1, Acceleration.TCG, NOW, "boot"))
        self.woken = 0
        self.servers: list[asyncio.Server] = []

    async def waken(self, vm_id: str) -> Vm | None:
        assert vm_id == VM.id
        self.woken += 1
        await self.awake.wait()
        return self.vm if self.can_wake else None

    async def publish(self, port: PublishedPort) -> None:
        if port.protocol is Protocol.TCP:
            self.servers.append(await asyncio.start_server(self._answer, port.address, port.host_port))
        else:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((port.address, port.host_port))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"heard " + await reader.read())
        writer.close()


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.fixture
def vm() -> Vm:
    ports = (
        PublishedPort(free_port(), free_port(), address="127.0.0.1"),
        PublishedPort(free_port(socket.SOCK_DGRAM), 53, Protocol.UDP, "127.0.0.1"),
    )
    return replace(VM, settings=replace(VM.settings, ports=ports))


@pytest.fixture
async def sockets(guest: Guest) -> AsyncIterator[LocalActivationSockets]:
    sockets = LocalActivationSockets()
    sockets.waken = guest.waken
    yield sockets
    sockets.close_all()
    for server in guest.servers:
        server.close()


async def caller(vm: Vm) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", vm.settings.ports[0].host_port)


async def listening(sockets: LocalActivationSockets, vm: Vm) -> None:
    async with asyncio.timeout(20):
        while set(sockets.listening(vm.id)) != set(vm.settings.ports):
            await asyncio.sleep(0.01)


async def wakes(sockets: LocalActivationSockets, vm: Vm, guest: Guest) -> None:
    await sockets.hand_over(vm, guest.publish)
    guest.awake.set()


async def test_who_comes_before_and_while_it_wakes_is_answered_by_the_guest(
    sockets: LocalActivationSockets, vm: Vm, guest: Guest
) -> None:
    sockets.listen(vm)
    callers = [await caller(vm) for _ in range(12)]
    for number, (_, writer) in enumerate(callers):
        writer.write(b"%d" % number)
        writer.write_eof()
    await wakes(sockets, vm, guest)
    for number, (reader, writer) in enumerate(callers):
        async with asyncio.timeout(20):
            assert await reader.read() == b"heard %d" % number
        writer.close()
    assert not sockets.listening(vm.id)


async def test_one_that_cannot_wake_resets_who_waits(sockets: LocalActivationSockets, vm: Vm, guest: Guest) -> None:
    guest.can_wake = False
    sockets.listen(vm)
    reader, writer = await caller(vm)
    guest.awake.set()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    reader, writer = await caller(vm)  # and it listens on
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_datagram_wakes(sockets: LocalActivationSockets, vm: Vm, guest: Guest) -> None:
    sockets.listen(vm)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(100):
            sender.sendto(b"hello", ("127.0.0.1", vm.settings.ports[1].host_port))
        async with asyncio.timeout(20):
            while not guest.woken:
                await asyncio.sleep(0.01)
    assert guest.woken == 1
    await wakes(sockets, vm, guest)


async def test_a_port_that_somebody_has_is_had_once_it_is_free(
    sockets: LocalActivationSockets, vm: Vm, guest: Guest
) -> None:
    with socket.create_server(("127.0.0.1", vm.settings.ports[0].host_port)):
        sockets.listen(vm)
        assert set(sockets.listening(vm.id)) == {vm.settings.ports[1]}
    await listening(sockets, vm)
    await wakes(sockets, vm, guest)


async def test_what_is_taken_over_is_listened_at_with_those_that_wait_there(
    sockets: LocalActivationSockets, vm: Vm, guest: Guest
) -> None:
    held = socket.create_server(("127.0.0.1", vm.settings.ports[0].host_port), backlog=8)
    reader, writer = await caller(vm)
    sockets.take_over(vm, {vm.settings.ports[0]: held.detach()})
    writer.write(b"early")
    writer.write_eof()
    await wakes(sockets, vm, guest)
    async with asyncio.timeout(20):
        assert await reader.read() == b"heard early"
    writer.close()


async def test_a_hand_over_that_fails_leaves_no_port_and_resets_who_waits(
    sockets: LocalActivationSockets, vm: Vm, guest: Guest
) -> None:
    async def refuse(port: PublishedPort) -> None:
        raise OSError(port)

    before = len(os.listdir("/proc/self/fd"))
    sockets.listen(vm)
    reader, writer = await caller(vm)
    with pytest.raises(OSError, match="tcp"):
        await sockets.hand_over(vm, refuse)
    guest.can_wake = False
    guest.awake.set()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    async with asyncio.timeout(20):
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0.01)
    assert not sockets.listening(vm.id)


async def test_one_too_many_is_reset_at_once_and_closing_resets_all(
    sockets: LocalActivationSockets, vm: Vm, guest: Guest
) -> None:
    sockets.listen(vm)
    callers = [await caller(vm) for _ in range(PLACES_EACH)]
    with pytest.raises(ConnectionResetError):
        await (await caller(vm))[0].read()
    sockets.close(vm.id)
    for reader, writer in callers:
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
    assert guest.woken == PLACES_EACH


async def test_who_has_gone_when_it_is_awake_leaves_nothing(
    sockets: LocalActivationSockets, vm: Vm, guest: Guest
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    sockets.listen(vm)
    for _ in range(5):
        _, writer = await caller(vm)
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    await wakes(sockets, vm, guest)
    for server in guest.servers:
        server.close()
    async with asyncio.timeout(20):
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0.01)


async def test_in_a_shared_network_it_is_the_guests_address_that_who_waits_is_connected_to(
    sockets: LocalActivationSockets, vm: Vm, guest: Guest
) -> None:
    """Whoever connects the VM holds its ports by then."""
    vm = replace(vm, slot=2)
    held = HeldPorts(guest.waken)
    await held.hold(vm, "127.0.0.1")
    sockets.listen(vm)
    assert not sockets.listening(vm.id)
    held.release(vm.id)
    sockets.take_over(vm, {})
    assert set(sockets.listening(vm.id)) == set(vm.settings.ports)
    reader, writer = await caller(vm)
    sockets.retire(vm.id)
    await held.hold(vm, "127.0.0.1")
    guest.servers.append(await asyncio.start_server(guest._answer, "127.0.0.1", vm.settings.ports[0].vm_port))
    guest.vm = replace(guest.vm, address="127.0.0.1")
    guest.awake.set()
    writer.write(b"early")
    writer.write_eof()
    async with asyncio.timeout(20):
        assert await reader.read() == b"heard early"
    writer.close()
    held.close()

"""What can be published where, and that nobody else gets the port meanwhile."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from ingle.api_server.adapters.helper.held import HeldPorts
from ingle.api_server.host.sockets import check_port
from ingle.api_server.model.errors import Conflict, HostProblem, InvalidArgument, Reason
from ingle.api_server.model.network import MOST_PORTS, Protocol, PublishedPort, check_ports, published_address
from ingle.api_server.model.vm import Vm
from ingle.host_helper.requests import MOST_CHANGES
from unit.api_server.vmms import VM

KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


def free_port() -> int:
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        stream.bind(("127.0.0.1", 0))
        port: int = stream.getsockname()[1]
        datagram.bind(("127.0.0.1", port))
        return port


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", ""),
        ("0.0.0.0", ""),
        ("::", ""),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
    ],
)
def test_an_address_is_written_one_way(text: str, address: str) -> None:
    assert published_address(text) == address


@pytest.mark.parametrize(
    "text", ["localhost", "127.0.0.1:80", "1.2.3", "[::1]", "224.0.0.1", "fe80::1%eth0", "1.2.3.4/24"]
)
def test_what_is_no_address_of_a_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        published_address(text)


def test_ports_are_published_side_by_side_at_different_addresses_only() -> None:
    one, two = PublishedPort(80, 1, address="192.0.2.1"), PublishedPort(80, 2, address="192.0.2.2")
    check_ports([one, two, replace(one, protocol=Protocol.UDP), replace(one, host_port=81)], "default")
    for other in (replace(one, vm_port=3), replace(one, address="")):
        with pytest.raises(InvalidArgument, match="published twice"):
            check_ports([one, two, other], "default")


def test_a_vm_has_as_many_ports_as_the_helper_takes_in_one_call_and_no_more() -> None:
    ports = [PublishedPort(1024 + number, 1) for number in range(MOST_PORTS + 1)]
    check_ports(ports[:-1], "default")
    assert len(ports[:-1]) + len(("network", "tap", "NAT")) <= MOST_CHANGES
    with pytest.raises(InvalidArgument, match="a VM can have 60"):
        check_ports(ports, "default")


def test_what_a_network_can_not_publish_is_refused_with_what_can_be_typed() -> None:
    loopback, six = PublishedPort(80, 1, address="127.0.0.1"), PublishedPort(80, 1, address="2001:db8::1")
    udp = replace(loopback, protocol=Protocol.UDP)
    check_ports([loopback, udp], "user")
    check_ports([six, loopback], "default")
    for port, network in (udp, "default"), (six, "user"), (replace(udp, address="::1"), "default"):
        with pytest.raises(InvalidArgument) as refused:
            check_ports([port], network)
        assert refused.value.remedy
    assert str(six) == "[2001:db8::1]:80:1/tcp"


def test_an_address_that_is_not_the_hosts_is_told() -> None:
    check_port("127.0.0.1", free_port(), socket.SOCK_STREAM)
    with pytest.raises(HostProblem, match=r"192\.0\.2\.1 is no address of this host"):
        check_port("192.0.2.1", free_port(), socket.SOCK_STREAM)


async def awake(_vm_id: str) -> Vm | None:
    """Who is awake is so at once."""
    return VM


@pytest.mark.parametrize("protocol", Protocol)
async def test_a_program_that_comes_later_is_told_that_a_published_port_is_in_use(protocol: Protocol) -> None:
    held = HeldPorts(awake)
    port = free_port()
    vm = replace(VM, settings=replace(VM.settings, ports=(PublishedPort(port, 80, protocol),)))
    for _ in range(2):
        await held.hold(vm, "127.0.0.9")
    for family, address in (socket.AF_INET, ""), (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"):
        with socket.socket(family, KINDS[protocol]) as late:
            late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(protocol is Protocol.TCP))
            with pytest.raises(OSError, match="in use") as told:
                late.bind((address, port))
            assert told.value.errno == errno.EADDRINUSE
    with pytest.raises(Conflict) as refused:
        await HeldPorts(awake).hold(vm, "127.0.0.9")
    assert refused.value.reason is Reason.IN_USE
    assert str(port) in refused.value.remedy
    held.release(vm.id)
    held.release(vm.id)
    with socket.socket(type=KINDS[protocol]) as free:
        free.bind(("", port))


async def test_at_one_address_the_others_stay_free() -> None:
    held = HeldPorts(awake)
    port = free_port()
    await held.hold(
        replace(VM, settings=replace(VM.settings, ports=(PublishedPort(port, 80, address="127.0.0.2"),))), "127.0.0.9"
    )
    with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.2", port))
    await held.only([])
    socket.create_server(("127.0.0.2", port)).close()


@asynccontextmanager
async def guest() -> AsyncIterator[int]:
    """A VM at 127.0.0.9 with a server that answers when it has heard all; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(b"heard " + await reader.read())
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.9", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def said(address: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(b"x" * 100_000)
        writer.write_eof()
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("published", "address"), [("", "127.0.0.1"), ("", "::1"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")]
)
async def test_the_hosts_loopback_leads_to_the_vm_until_it_is_gone_and_to_the_next_one(
    published: str, address: str
) -> None:
    held = HeldPorts(awake)
    port = free_port()
    async with guest() as vm_port:
        vm = replace(VM, settings=replace(VM.settings, ports=(PublishedPort(port, vm_port, address=published),)))
        for _ in range(2):
            await held.hold(vm, "127.0.0.9")
            assert await said(address, port) == b"heard " + b"x" * 100_000
            reader, writer = await asyncio.open_connection(address, port)
            held.release(vm.id)
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            with pytest.raises(ConnectionRefusedError):
                await said(address, port)


async def test_a_vm_that_does_not_listen_ends_the_connection() -> None:
    held = HeldPorts(awake)
    port = free_port()
    await held.hold(replace(VM, settings=replace(VM.settings, ports=(PublishedPort(port, free_port()),))), "127.0.0.9")
    with suppress(OSError):
        assert await said("127.0.0.1", port) == b""
    held.release(VM.id)


@pytest.mark.parametrize("address", ["", "127.0.0.1"])
async def test_who_connects_waits_until_the_vm_is_awake_and_a_datagram_wakes_it(address: str) -> None:
    woken: list[str] = []
    found, waking = [VM, None], asyncio.Event()

    async def waken(vm_id: str) -> Vm | None:
        woken.append(vm_id)
        await waking.wait()
        return found[0]

    held = HeldPorts(waken)
    tcp, udp = free_port(), free_port()
    async with guest() as vm_port:
        ports = (PublishedPort(tcp, vm_port, address=address), PublishedPort(udp, 53, Protocol.UDP, address))
        await held.hold(replace(VM, settings=replace(VM.settings, ports=ports)), "127.0.0.9")
        saying = [asyncio.create_task(said("127.0.0.1", tcp)) for _ in range(3)]
        while len(woken) < len(saying):
            await asyncio.sleep(0.01)
        assert not any(each.done() for each in saying)
        waking.set()
        assert await asyncio.gather(*saying) == [b"heard " + b"x" * 100_000] * 3
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"hello", ("127.0.0.1", udp))
        while len(woken) == len(saying):
            await asyncio.sleep(0.01)
        assert set(woken) == {VM.id}
        waking.clear()
        early, before = asyncio.create_task(said("127.0.0.1", tcp)), len(woken)
        while len(woken) == before:
            await asyncio.sleep(0.01)
        held.release(VM.id)  # it hibernates before it hears
        waking.set()
        assert await early == b"heard " + b"x" * 100_000
        await held.hold(replace(VM, settings=replace(VM.settings, ports=ports)), "127.0.0.9")
        found.reverse()
        with suppress(ConnectionResetError):
            assert await said("127.0.0.1", tcp) == b""
    held.release(VM.id)

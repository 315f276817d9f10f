"""Who listens in the guest, what its network and processors did, and what its callers do."""

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ingle.api_server.model.guest import AttachSpec, ExecSpec, GuestActivity, Input, SessionProgram
from ingle.api_server.model.guest_network import ForwardSpec, GuestPort, ListeningPort
from ingle.api_server.model.network import Protocol
from ingle.api_server.ports.guest import GuestChannel

from .conftest import Agent


async def port_of(channel: GuestChannel, port: int) -> list[ListeningPort]:
    return [found for found in (await channel.list_ports()).ports if found.port == port]


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
async def test_a_listening_tcp_port_is_told_with_its_process(
    channel: GuestChannel, family: socket.AddressFamily, address: str
) -> None:
    with socket.create_server((address, 0), family=family) as listening:
        port = listening.getsockname()[1]
        (found,) = await port_of(channel, port)
        assert (found.protocol, found.address, found.port) == (Protocol.TCP, address, port)
        assert (found.pid, found.uid) == (os.getpid(), os.getuid())
        assert found.process == Path("/proc/self/comm").read_text().strip()
        assert found.command[0] == Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()
        if os.getuid() == 0:
            assert found.user == "root"
    assert await port_of(channel, port) == []


async def test_connections_are_not_listening(channel: GuestChannel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        client.connect(listening.getsockname())
        assert await port_of(channel, client.getsockname()[1]) == []


async def test_udp_ports_are_told_unless_they_are_connected(channel: GuestChannel) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("0.0.0.0", 0))
        port = udp.getsockname()[1]
        (found,) = await port_of(channel, port)
        assert (found.protocol, found.address, found.pid) == (Protocol.UDP, "0.0.0.0", os.getpid())
        udp.connect(("127.0.0.1", 9))
        assert await port_of(channel, port) == []


async def test_a_thousand_ports_are_told_and_that_there_are_more(channel: GuestChannel) -> None:
    with socket.create_server(("127.0.0.1", 0)):
        sockets = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(1010)]
        try:
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            found = await channel.list_ports()
        finally:
            for each in sockets:
                each.close()
        assert (len(found.ports), found.truncated) == (1000, True)
        assert not (await channel.list_ports()).truncated


async def test_ports_come_in_order(channel: GuestChannel) -> None:
    with socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0)):
        order = [(found.protocol is Protocol.UDP, found.port) for found in (await channel.list_ports()).ports]
    assert order == sorted(order)


async def test_processor_times_grow_with_work(channel: GuestChannel) -> None:
    before = await channel.stats()
    assert before.cpus == os.cpu_count()
    assert 0 < before.cpu_idle_seconds < before.cpu_total_seconds

    def busy() -> float:
        return after.cpu_total_seconds - after.cpu_idle_seconds - before.cpu_total_seconds + before.cpu_idle_seconds

    after = before
    async with asyncio.timeout(60):
        while busy() < 0.05:
            sum(range(1_000_000))
            after = await channel.stats()


async def test_network_counters_are_those_of_each_interface(channel: GuestChannel) -> None:
    before = {found.name: found for found in (await channel.stats()).interfaces}
    assert sorted(before) == sorted(os.listdir("/sys/class/net"))
    with socket.socket(type=socket.SOCK_DGRAM) as sender, socket.socket(type=socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        for _ in range(100):
            sender.sendto(bytes(1000), receiver.getsockname())
    after = {found.name: found for found in (await channel.stats()).interfaces}
    assert after["lo"].sent_bytes - before["lo"].sent_bytes >= 100_000
    assert after["lo"].received_packets - before["lo"].received_packets >= 100


async def test_what_runs_is_counted_while_it_does(start_agent: Callable[..., Agent]) -> None:
    channel = start_agent().channel()

    async def counts() -> tuple[int, int, int, int]:
        now = await channel.activity()
        return now.execs, now.sessions, now.attached_sessions, now.forwards

    async def become(wanted: tuple[int, int, int, int]) -> None:
        async with asyncio.timeout(20):
            while await counts() != wanted:
                await asyncio.sleep(0.01)

    assert await counts() == (0, 0, 0, 0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        target = GuestPort(listening.getsockname()[1])
        async with channel.exec(ExecSpec(("sleep", "1000"))), channel.forward(ForwardSpec(target)):
            spec = AttachSpec("s", create=SessionProgram(("sleep", "1000")))
            async with channel.attach_session(spec):
                assert await counts() == (1, 1, 1, 1)
            await become((1, 1, 0, 1))
        await become((0, 1, 0, 0))
    await channel.kill_session("s")
    await become((0, 0, 0, 0))


async def test_a_command_without_its_caller_counts_until_it_ends(
    start_agent: Callable[..., Agent], tmp_path: Path
) -> None:
    channel, go = start_agent().channel(), tmp_path / "go"
    spec = ExecSpec(("sh", "-c", f"until test -e {go}; do sleep 0.01; done"), detach=True)
    async with channel.exec(spec) as session:
        assert len([event async for event in session.events()]) == 1
    for _ in range(20):  # the call that started it is over, sooner or later
        assert (await channel.activity()).execs >= 1
    go.touch()
    async with asyncio.timeout(20):
        while (await channel.activity()).execs:
            await asyncio.sleep(0.01)


async def test_asking_is_no_activity_and_bytes_are(start_agent: Callable[..., Agent], tmp_path: Path) -> None:
    channel = start_agent().channel()

    async def idle_longer_than(seconds: float) -> float:
        """Asks all the time, which must not count."""
        async with asyncio.timeout(20):
            while (idle := (await channel.activity()).idle_seconds) <= seconds:
                await channel.ping()
                await channel.stats()
                await channel.list_sessions()
                await channel.list_ports()
        return idle

    async def idle_shorter_than(seconds: float, act: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while (await channel.activity()).idle_seconds >= seconds:
                await act()  # type: ignore[misc] # a coroutine function

    async with channel.exec(ExecSpec(("cat",), stdin=True)) as session:
        await anext(session.events())
        before = await idle_longer_than(0.3)
        await idle_shorter_than(before, lambda: session.say(Input(b"x")))
    before = await idle_longer_than(0.3)
    await idle_shorter_than(before, lambda: channel.files.stat(str(tmp_path)))


async def test_a_session_that_speaks_to_nobody_is_active(start_agent: Callable[..., Agent]) -> None:
    channel = start_agent().channel()
    await channel.create_session("s", SessionProgram(("sh", "-c", "sleep 0.5; echo said; sleep 1000")))
    idle = 0.0
    async with asyncio.timeout(20):
        while (now := (await channel.activity()).idle_seconds) >= idle:
            idle = now
            await asyncio.sleep(0.01)
    assert idle > 0
    await channel.kill_session("s")


async def test_a_stalled_viewer_and_a_stalled_reader_hold_nothing_up(start_agent: Callable[..., Agent]) -> None:
    channel = start_agent().channel()
    spec = AttachSpec("s", create=SessionProgram(("yes",)))
    async with channel.attach_session(spec), channel.exec(ExecSpec(("yes",))):
        answers: list[GuestActivity] = []
        async with asyncio.timeout(20):
            for _ in range(50):
                answers.append(await channel.activity())
                await asyncio.sleep(0.01)
        assert {(now.execs, now.attached_sessions) for now in answers} == {(1, 1)}
    await channel.kill_session("s")

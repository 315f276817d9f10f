"""Questions on real sockets: in the process that reads them, and through the server that keeps it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from dnslib import RCODE, DNSRecord

from ingle.api_server.adapters.dns import responder as responding
from ingle.api_server.adapters.dns.answers import Host
from ingle.api_server.adapters.dns.responder import Responder
from ingle.api_server.adapters.dns.server import DnsServer, bound
from ingle.api_server.adapters.dns.upstream import Upstream, framed, read_framed, servers_of
from ingle.api_server.model.errors import HostProblem, Reason

WEB = Host("web", "default", "10.213.0.2", nat=False)
HERE, HERE6 = "127.0.0.1", "::1"
QUESTION = DNSRecord.question("web.0.vm").pack()
ELSEWHERE = DNSRecord.question("debian.org").pack()


def free_port(address: str = HERE) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as stream, socket.socket(family, socket.SOCK_DGRAM) as datagram:
        stream.bind((address, 0))
        port: int = stream.getsockname()[1]
        datagram.bind((address, port))
        return port


@asynccontextmanager
async def responder(domain: str = "vm") -> AsyncIterator[tuple[Responder, int]]:
    """One in this process, which knows WEB."""
    found = Responder(domain)
    found.directory.tell("1", WEB)
    port = free_port()
    await found.listen(*bound(HERE, port))
    try:
        yield found, port
    finally:
        await found.close()


@asynccontextmanager
async def dns_server(configuration: Path = Path("/nonexistent")) -> AsyncIterator[tuple[DnsServer, int]]:
    """One with a process, which knows WEB and listens here."""
    port = free_port()
    server = DnsServer("vm", port, configuration)
    server.start()
    try:
        server.tell("1", WEB)
        await server.serve(HERE)
        yield server, port
    finally:
        await server.close()


class Caller(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.heard.put_nowait(data)


async def by_datagram(port: int, *questions: bytes, source: str = HERE, to: str = HERE) -> bytes:
    """The first thing that is heard after all of them were sent."""
    loop = asyncio.get_running_loop()
    transport, caller = await loop.create_datagram_endpoint(Caller, remote_addr=(to, port), local_addr=(source, 0))
    try:
        for question in questions:
            transport.sendto(question)
        async with asyncio.timeout(30):
            return await caller.heard.get()
    finally:
        transport.close()


async def by_stream(port: int, *questions: bytes) -> list[bytes]:
    reader, writer = await asyncio.open_connection(HERE, port)
    try:
        writer.writelines(framed(question) for question in questions)
        async with asyncio.timeout(30):
            return [await read_framed(reader) for _ in questions]
    finally:
        writer.close()


def addresses(reply: bytes) -> list[str]:
    return [str(answer.rdata) for answer in DNSRecord.parse(reply).rr]


def responder_of(server_pid: int) -> int:
    """The one child of ours that answers."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError, IndexError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == server_pid and b"adapters.dns.responder" in (entry / "cmdline").read_bytes():
                return int(entry.name)
    raise LookupError


async def until(so: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not so():
            await asyncio.sleep(0.01)


async def until_gone(pid: int) -> None:
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        await asyncio.sleep(0.01)


async def test_names_are_answered_by_datagram_and_by_stream() -> None:
    async with dns_server() as (_, port):
        assert addresses(await by_datagram(port, QUESTION)) == [WEB.address]
        assert [addresses(reply) for reply in await by_stream(port, QUESTION, QUESTION)] == [[WEB.address]] * 2


async def test_what_is_told_is_known_from_then_on() -> None:
    async with dns_server() as (server, port):
        server.tell("1", Host("other", "default", "10.213.0.3", nat=False))
        assert addresses(await by_datagram(port, DNSRecord.question("other.0.vm").pack())) == ["10.213.0.3"]
        server.tell("1", None)
        assert DNSRecord.parse(await by_datagram(port, QUESTION)).header.rcode == RCODE.NXDOMAIN


async def test_another_process_takes_over_with_all_that_is_known_and_the_port_is_never_free() -> None:
    async with dns_server() as (server, port):
        server.tell("2", Host("two", "default", "10.213.0.4", nat=False))
        await by_datagram(port, QUESTION)
        for _ in range(2):
            killed = responder_of(os.getpid())
            os.kill(killed, signal.SIGKILL)
            with pytest.raises(OSError, match="in use"):
                bound(HERE, port)
            assert addresses(await by_datagram(port, DNSRecord.question("two.0.vm").pack())) == ["10.213.0.4"]
            assert [addresses(reply) for reply in await by_stream(port, QUESTION)] == [[WEB.address]]
            assert responder_of(os.getpid()) != killed


async def test_it_ends_with_its_server_however_that_ends() -> None:
    async with dns_server() as (_, port):
        await by_datagram(port, QUESTION)
        closed = responder_of(os.getpid())
    await until_gone(closed)
    program = (
        "import asyncio, sys; from ingle.api_server.adapters.dns import DnsServer\n"
        "async def main():\n DnsServer('vm').start(); await asyncio.sleep(1e9)\nasyncio.run(main())"
    )
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    orphan = 0
    while not orphan:
        await asyncio.sleep(0.01)
        with suppress(LookupError):
            orphan = responder_of(killed.pid)
    killed.kill()
    await killed.wait()
    await until_gone(orphan)


def test_what_reads_questions_has_no_file_no_program_and_no_other_process() -> None:
    """A program in its place, confined as it is, tries everything."""
    program = """
import os, signal, socket, threading
from ingle.api_server.adapters.dns.confine import confine
parent = os.getppid()
confine()
def can(what):
    try:
        what()
    except (OSError, RuntimeError):
        return False
    return True
tries = {
    "read": lambda: os.open("/etc/resolv.conf", os.O_RDONLY),
    "write": lambda: os.open("/tmp", os.O_RDWR | os.O_TMPFILE),
    "list": lambda: os.listdir("/proc"),
    "run": lambda: os.execv("/bin/true", ["true"]),
    "fork": os.fork,
    "thread": lambda: threading.Thread(target=int).start(),
    "signal": lambda: os.kill(parent, 0),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "trace": lambda: os.pidfd_open(parent),
    "inet": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 53)),
    "inet6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
}
os.write(1, " ".join(name for name, what in tries.items() if can(what)).encode())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("inet inet6", "", 0)


@pytest.mark.parametrize("address", [HERE, HERE6])
async def test_what_is_not_ours_comes_from_the_hosts_servers_and_the_first_that_answers_is_heard(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they have IPv6 addresses only."""
    behind, port = Responder("elsewhere"), free_port(address)
    behind.directory.tell("1", Host("here", "default", "192.0.2.7", nat=False))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    datagrams, streams = (socket.socket(family, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
    for each in (datagrams, streams):
        each.bind((address, port))
    await behind.listen(datagrams, streams)
    configuration = tmp_path / "resolv.conf"
    dead = "127.0.0.99" if address == HERE else "fe80::1%lo"
    configuration.write_text(f"# by hand\nsearch example\nnameserver {dead}\nnameserver {address}\n")
    monkeypatch.setattr("ingle.api_server.adapters.dns.server.servers_of", lambda path: servers_of(path, port))
    try:
        async with dns_server(configuration) as (_, ours):
            question = DNSRecord.question("here.0.elsewhere")
            reply = await by_datagram(ours, question.pack())
            assert addresses(reply) == ["192.0.2.7"]
            assert DNSRecord.parse(reply).header.id == question.header.id
            assert [addresses(each) for each in await by_stream(ours, question.pack())] == [["192.0.2.7"]]
    finally:
        await behind.close()


async def test_without_a_server_behind_it_the_failure_is_told(tmp_path: Path) -> None:
    for text in ("", "nameserver 127.0.0.99\n", "nameserver what ever\nnameserver \xff\n", None):
        configuration = tmp_path / "resolv.conf"
        configuration.unlink(missing_ok=True)
        if text is not None:
            configuration.write_text(text)
        async with responder() as (found, port):
            found.upstream = Upstream(servers_of(configuration, free_port()))
            assert DNSRecord.parse(await by_datagram(port, ELSEWHERE)).header.rcode == RCODE.SERVFAIL


async def test_noise_is_not_answered_and_does_no_harm() -> None:
    async with responder() as (_, port):
        response = DNSRecord.question("big.vm").reply().pack()
        noise = [b"", b"\0", b"x" * 11, b"\xff" * 600, response, QUESTION + bytes(60000)]
        good = DNSRecord.question("web.0.vm")
        reply = await by_datagram(port, *noise, good.pack())
        assert DNSRecord.parse(reply).header.id == good.header.id
        assert addresses(reply) == [WEB.address]


async def test_the_longest_messages_of_tcp_hold_nobody_up() -> None:
    chain = QUESTION[:12] + b"".join(b"\xc0\x0c" for _ in range(8000)) + b"\0\1\0\1"
    async with responder() as (_, port):
        for message in (QUESTION[:12] + b"\1a" * 32000, chain):
            reader, writer = await asyncio.open_connection(HERE, port)
            writer.write(framed(message[:65535]))
            with suppress(OSError):
                assert await reader.read() == b""
            writer.close()
        assert addresses(await by_datagram(port, QUESTION)) == [WEB.address]


async def test_one_asker_with_questions_that_nobody_answers_takes_no_answer_from_another() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((HERE, 0))
        async with responder() as (found, port):
            found.upstream = Upstream([(int(socket.AF_INET), list(silent.getsockname()))])
            loop = asyncio.get_running_loop()
            flood, _ = await loop.create_datagram_endpoint(
                Caller, remote_addr=(HERE, port), local_addr=("127.0.0.2", 0)
            )
            for _ in range(20):
                for _ in range(50):
                    flood.sendto(ELSEWHERE)
                await asyncio.sleep(0.001)
            assert addresses(await by_datagram(port, QUESTION, source="127.0.0.3")) == [WEB.address]
            assert len(found._under_way) <= responding._QUESTIONS_EACH + 1
            flood.close()


async def test_one_asker_has_few_connections_and_another_gets_its_own() -> None:
    async with responder() as (_, port):
        held = [await asyncio.open_connection(HERE, port, local_addr=("127.0.0.2", 0)) for _ in range(200)]
        open_ones = 0
        for reader, writer in held:
            with suppress(OSError, asyncio.IncompleteReadError):
                writer.write(framed(QUESTION))
                open_ones += addresses(await read_framed(reader)) == [WEB.address]
        assert open_ones == responding._CONNECTIONS_EACH
        assert [addresses(each) for each in await by_stream(port, QUESTION)] == [[WEB.address]]
        for _, writer in held:
            writer.close()


async def test_a_connection_ends_when_its_time_is_over_whatever_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responding, "_LIFE_SECONDS", 0.2)
    async with responder() as (_, port):
        reader, writer = await asyncio.open_connection(HERE, port)
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                writer.write(framed(QUESTION))
                await read_framed(reader)
        assert reader.at_eof() or writer.is_closing()
        writer.close()


async def test_an_address_that_is_not_there_yet_can_be_served() -> None:
    server = DnsServer("vm", free_port())
    try:
        await server.serve("10.213.200.1")
        await server.serve("10.213.200.1")
    finally:
        await server.close()


async def test_at_a_gateway_a_port_that_somebody_has_is_no_hindrance() -> None:
    async with dns_server() as (server, port):
        with socket.create_server(("127.0.0.2", port)):
            other = await server.serve("127.0.0.2")
            assert other != port == await server.serve(HERE)
            assert other == await server.serve("127.0.0.2")
            assert addresses(await by_datagram(other, QUESTION, to="127.0.0.2")) == [WEB.address]


async def test_a_port_that_somebody_has_is_told_and_can_be_tried_again() -> None:
    port = free_port()
    server = DnsServer("vm", port)
    server.start()
    server.tell("1", WEB)
    try:
        with socket.create_server((HERE, port)), pytest.raises(HostProblem, match="another program has it") as refused:
            await server.serve(HERE)
        assert refused.value.reason is Reason.PORT_REFUSED
        await server.serve(HERE)
        assert addresses(await by_datagram(port, QUESTION)) == [WEB.address]
    finally:
        await server.close()


async def test_each_neighbour_knocks_once_a_second_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []
    found = Responder("vm", woken.append)
    for number in range(2, 6):
        sleeper = str(number) if number > 3 else ""
        found.directory.tell(
            str(number), Host(f"vm{number}", "default", f"10.213.0.{number}", nat=False, sleeper=sleeper)
        )

    async def ask(asker: int, about: int) -> None:
        reply = await found._reply(DNSRecord.question(f"vm{about}.vm").pack(), f"10.213.0.{asker}", stream=False)
        assert reply is not None
        assert addresses(reply) == [f"10.213.0.{about}"]

    for _ in range(10):
        await ask(2, 4)
    assert woken == ["4"]
    await ask(2, 5)
    await ask(3, 4)
    assert woken == ["4", "5", "4"]
    monkeypatch.setattr(responding, "_MOST_KNOCKS", 3)
    await ask(3, 5)
    assert len(woken) == 3, "so many are remembered, and no more"
    await asyncio.sleep(1.1)
    await ask(3, 5)
    assert woken[3:] == ["5"]


async def test_a_process_that_was_taken_over_wakes_those_that_sleep_and_can_do_nothing_else() -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = DnsServer("vm")
    woken: list[str] = []

    async def waken(vm_id: str) -> None:
        woken.append(vm_id)
        raise OSError("it can't be woken")

    server.waken = waken
    server.tell("1", WEB)
    server.tell("2", replace(WEB, name="sleeping", sleeper="2"))
    ours.setblocking(False)
    with ours, its:
        for said in (b"1", b"3", b"\xff" * 60, b"{}", b"2" * 65, b"2", b"2", b"../2", b"2\n"):
            its.send(said)
        server._hear(ours)
        await until(lambda: not server._waking)
        assert woken == ["2"]
        for _ in range(100):
            its.send(b"x")
        its.send(b"2")
        server._hear(ours)
        assert woken == ["2"], "it is not listened to without end"
        asyncio.get_running_loop().add_reader(ours, server._hear, ours)
        await until(lambda: woken == ["2", "2"])
        its.close()
        await until(lambda: not asyncio.get_running_loop().remove_reader(ours))
    await server.close()

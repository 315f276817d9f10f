"""A server in a real guest, reached from the host; and what the guest tells of it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import Server, refused
from ingle.v1 import guest_pb2, vm_pb2

HTTP = r"""
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die $!;
while (my $client = $server->accept) {
    while (<$client>) { last if /^\r?\n$/ }
    print $client "HTTP/1.0 200 OK\r\n\r\nhello from " . `hostname`;
    close $client;
}
"""

# Answers once its input has ended, on a unix socket.
UPPER = r"""
use IO::Socket::UNIX;
my $server = IO::Socket::UNIX->new(Local => "/run/upper.sock", Listen => 5) or die $!;
while (my $client = $server->accept) {
    local $/;
    my $all = <$client>;
    print $client uc $all;
    close $client;
}
"""

# To the host's side of the guest's network, where nobody cares.
DATAGRAMS = r"""
use IO::Socket::INET;
my $socket = IO::Socket::INET->new(Proto => "udp", PeerAddr => "10.0.2.2:9") or die $!;
$socket->send("x" x 1000) for 1 .. 1000;
"""


def ingle(server: Server, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "ingle.cli", "vm", *arguments],
        env={**server.env, "INGLE_SOCKET": str(server.socket)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def answer(server: Server, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    process = ingle(server, *arguments)
    out, err = process.communicate(stdin, timeout=60)
    return process.returncode, out, err


@contextmanager
def forwarding(server: Server, vm: str, *rules: str) -> Iterator[tuple["subprocess.Popen[bytes]", list[int]]]:
    """The command under way, and the local ports it chose."""
    process = ingle(server, "forward", vm, *rules)
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline().decode() for _ in rules]
        yield process, [int(line.partition(" -> ")[0].rpartition(":")[2]) for line in lines]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ports(server: Server, vm: str) -> list[guest_pb2.ListeningPort]:
    return list(server.guest.ListPorts(guest_pb2.ListPortsRequest(vm=vm)).ports)


@pytest.fixture(scope="module")
def web(server: Server, shared_vm: vm_pb2.Vm) -> vm_pb2.Vm:
    """A guest with servers."""
    for script in (HTTP, UPPER):
        assert server.run(shared_vm.id, "setsid", "-f", "sh", "-c", 'exec perl -e "$0" >/dev/null 2>&1', script)[0] == 0
    eventually(lambda: any(port.port == 8080 for port in ports(server, shared_vm.id)))
    eventually(lambda: server.run(shared_vm.id, "test", "-S", "/run/upper.sock")[0] == 0)
    return shared_vm


def get(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read()
    finally:
        connection.close()


def test_a_web_server_in_the_guest_answers_on_the_host(server: Server, web: vm_pb2.Vm) -> None:
    with forwarding(server, web.name, "0:8080", "0:/run/upper.sock", "0:9") as (_, (http_port, upper_port, nobody)):
        for _ in range(5):
            assert get(http_port) == f"hello from {web.name}\n".encode()
        with socket.create_connection(("127.0.0.1", upper_port), timeout=60) as client:
            client.sendall(b"half closed")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b"HALF CLOSED"
            assert client.recv(100) == b""
        with pytest.raises(ConnectionResetError):
            get(nobody)
        assert get(http_port) == f"hello from {web.name}\n".encode()


def test_one_connection_on_standard_streams(server: Server, web: vm_pb2.Vm) -> None:
    code, out, err = answer(server, "forward", web.name, "--stdio", "8080", stdin=b"GET / HTTP/1.0\r\n\r\n")
    assert (code, err) == (0, b"")
    assert out.endswith(f"hello from {web.name}\n".encode())


def test_ports_name_the_process(server: Server, web: vm_pb2.Vm) -> None:
    (found,) = [port for port in ports(server, web.id) if port.port == 8080]
    assert (found.address, found.process, found.user) == ("127.0.0.1", "perl", "root")
    assert found.command[:2] == ["perl", "-e"]
    assert found.pid > 1
    code, out, _ = answer(server, "ports", web.name, "--json")
    assert code == 0
    assert any(port["port"] == 8080 and port["pid"] == found.pid for port in json.loads(out))


def test_what_nobody_listens_on_is_refused(server: Server, web: vm_pb2.Vm) -> None:
    start = guest_pb2.ForwardStart(vm=web.id, tcp=guest_pb2.TcpTarget(port=9))
    error = refused(list, server.guest.Forward(iter([guest_pb2.ForwardRequest(start=start)])))
    assert (error.reason, error.remedy) == ("CONNECTION_REFUSED", f"ingle vm ports {web.id} shows who listens on what")
    start = guest_pb2.ForwardStart(vm=web.id, unix_path="/run/no.sock")
    error = refused(list, server.guest.Forward(iter([guest_pb2.ForwardRequest(start=start)])))
    assert error.reason == "SOCKET_NOT_FOUND"


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (guest_pb2.ForwardStart(), "needs a target"),
        (guest_pb2.ForwardStart(tcp=guest_pb2.TcpTarget()), "port 0"),
        (guest_pb2.ForwardStart(tcp=guest_pb2.TcpTarget(port=65536)), "port 65536"),
        (guest_pb2.ForwardStart(tcp=guest_pb2.TcpTarget(port=1, host="a b")), "neither a name nor an address"),
        (guest_pb2.ForwardStart(unix_path="x"), "absolute"),
    ],
)
def test_a_bad_target_is_refused(
    server: Server, shared_vm: vm_pb2.Vm, start: guest_pb2.ForwardStart, words: str
) -> None:
    start.vm = shared_vm.id
    error = refused(list, server.guest.Forward(iter([guest_pb2.ForwardRequest(start=start)])))
    assert error.reason == "INVALID_ARGUMENT"
    assert words in error.message


def test_stats_and_activity_move(server: Server, web: vm_pb2.Vm) -> None:
    request = vm_pb2.GetVmStatsRequest(vm=web.id)
    before = server.vms.GetVmStats(request)
    assert before.guest.cpus == 1
    assert {each.name for each in before.guest.interfaces} >= {"lo", "eth0"}
    assert server.run(web.id, "perl", "-e", DATAGRAMS)[0] == 0
    assert server.run(web.id, "sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")[0] == 0
    after = server.vms.GetVmStats(request)

    def busy(stats: vm_pb2.GuestStats) -> int:
        return stats.cpu_total.ToMilliseconds() - stats.cpu_idle.ToMilliseconds()

    def sent(stats: vm_pb2.GuestStats) -> int:
        return sum(each.sent_bytes for each in stats.interfaces if each.name == "eth0")

    assert busy(after.guest) > busy(before.guest)
    assert sent(after.guest) - sent(before.guest) > 500_000
    eventually(lambda: server.vms.GetVmStats(request).activity.execs == 0)  # once its connection is closed
    assert server.vms.GetVmStats(request).activity.forwards == 0
    with forwarding(server, web.name, "0:/run/upper.sock") as (_, (port,)):
        with socket.create_connection(("127.0.0.1", port)):
            eventually(lambda: server.vms.GetVmStats(request).activity.forwards == 1)
        eventually(lambda: server.vms.GetVmStats(request).activity.forwards == 0)
    health = server.vms.GetVmHealth(vm_pb2.GetVmHealthRequest(vm=web.id))
    assert health.agent_answers
    assert health.HasField("activity")


def test_the_end_of_the_vm_ends_the_forward(server: Server, vm: vm_pb2.Vm) -> None:
    with forwarding(server, vm.name, "0:80") as (process, _):
        server.vms.KillVm(vm_pb2.KillVmRequest(vm=vm.id))
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert f"VM '{vm.name}' does not run any more".encode() in err


def test_nothing_reaches_a_vm_of_a_network_of_its_own_but_the_server(shared_vm: vm_pb2.Vm) -> None:
    """Its VMM listens at no port. By UDP there is no listening: what it has open there are questions of the guest's
    own."""
    sockets = {os.readlink(entry) for entry in Path(f"/proc/{shared_vm.pid}/fd").iterdir()}
    for protocol in "tcp", "tcp6":
        for line in Path(f"/proc/{shared_vm.pid}/net/{protocol}").read_text().splitlines()[1:]:
            fields = line.split()
            assert fields[3] != "0A" or f"socket:[{fields[9]}]" not in sockets

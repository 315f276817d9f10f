"""Published ports of real guests that are asleep: whoever connects waits until the guest answers, and wakes it."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from free_ports import free_port
from harness import NewServer, Server, refused
from ingle.v1 import event_pb2, protocol_pb2, vm_pb2
from slow import mostly_slow

PAUSED, HIBERNATED, RUNNING = vm_pb2.VM_STATE_PAUSED, vm_pb2.VM_STATE_HIBERNATED, vm_pb2.VM_STATE_RUNNING

SERVE = r"""
use IO::Socket::INET;
$SIG{CHLD} = "IGNORE"; $SIG{PIPE} = "IGNORE";
my $tcp = IO::Socket::INET->new(LocalPort => 80, Listen => 64, ReuseAddr => 1) or die;
my $udp = IO::Socket::INET->new(LocalPort => 53, Proto => "udp") or die;
exit if fork;
if (fork) {
  while (1) {
    my $caller = $tcp->accept or next;
    next if fork;
    $caller->autoflush(1);
    my $line = <$caller>;
    if (!defined $line) { exit }
    if ($line =~ /^GET /) {
      while ((my $header = <$caller>) =~ /\S/) {}
      print $caller "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nawake\n";
    } else {
      my $all = $line;
      while (my $more = <$caller>) { $all .= $more }
      print $caller "heard $all";
    }
    exit;
  }
} else { while (1) { next unless defined $udp->recv(my $data, 100); $udp->send("heard $data") } }
"""


@pytest.fixture
def server(new_server: NewServer) -> Server:
    return new_server()


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port(socket.SOCK_DGRAM)


@pytest.fixture
def vm(server: Server, ports: tuple[int, int]) -> Iterator[vm_pb2.Vm]:
    """One that answers at both."""
    tcp, udp = ports
    published = [
        vm_pb2.PublishedPort(host_port=tcp, vm_port=80, address="127.0.0.1"),
        vm_pb2.PublishedPort(host_port=udp, vm_port=53, protocol=protocol_pb2.PROTOCOL_UDP),
    ]
    spec = vm_pb2.VmSpec(ports=published)
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm
    code, _, err = server.run(vm.id, "perl", "-e", SERVE)
    assert code == 0, err
    assert say(tcp, b"first\n") == b"heard first\n"
    yield vm
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def say(port: int, what: bytes) -> bytes:
    """What is answered to that, by somebody who sees its end first."""
    with socket.create_connection(("127.0.0.1", port), timeout=90) as caller:
        caller.sendall(what)
        caller.shutdown(socket.SHUT_WR)
        return caller.makefile("rb").read()


def sleep(server: Server, vm: vm_pb2.Vm, how: str) -> None:
    if how == "pause":
        server.vms.PauseVm(vm_pb2.PauseVmRequest(vm=vm.id))
    else:
        server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id))


def now(server: Server, vm: vm_pb2.Vm) -> vm_pb2.Vm:
    return server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm


def becomes(server: Server, vm: vm_pb2.Vm, state: vm_pb2.VmState.ValueType) -> None:
    deadline = time.monotonic() + 60
    while now(server, vm).state != state:
        assert time.monotonic() < deadline, now(server, vm)
        time.sleep(0.05)


def vmms(server: Server, vm: vm_pb2.Vm) -> list[str]:
    return [line for line in server.vmm_processes().values() if vm.id in line]


@pytest.mark.parametrize("how", ["pause", "hibernate"])
def test_a_client_waits_and_is_answered_and_its_half_closed_connection_carries_all(
    server: Server, vm: vm_pb2.Vm, ports: tuple[int, int], how: str
) -> None:
    for turn in range(2):
        sleep(server, vm, how)
        much = b"".join(b"%d of turn %d\n" % (number, turn) for number in range(20000))
        assert say(ports[0], much) == b"heard " + much
        becomes(server, vm, RUNNING)
        assert now(server, vm).boot_id == vm.boot_id
        assert say(ports[0], b"again\n") == b"heard again\n"  # by its VMM alone


@pytest.mark.parametrize("how", mostly_slow(["pause", "hibernate"], "hibernate"))
def test_curl_is_answered(server: Server, vm: vm_pb2.Vm, ports: tuple[int, int], how: str) -> None:
    sleep(server, vm, how)
    said = subprocess.run(
        ["curl", "-sS", "--fail", "--max-time", "90", f"http://127.0.0.1:{ports[0]}/"],
        stdout=subprocess.PIPE,
        check=True,
    )
    assert said.stdout == b"awake\n"


@pytest.mark.parametrize("how", ["pause", "hibernate"])
def test_twelve_at_once_wake_it_once(server: Server, vm: vm_pb2.Vm, ports: tuple[int, int], how: str) -> None:
    sleep(server, vm, how)
    with ThreadPoolExecutor(12) as callers:
        said = list(callers.map(lambda number: say(ports[0], b"%d\n" % number), range(12)))
    assert said == [b"heard %d\n" % number for number in range(12)]
    assert len(vmms(server, vm)) == 1


@pytest.mark.parametrize("how", mostly_slow(["pause", "hibernate"], "hibernate"))
def test_a_client_that_vanishes_wakes_it_and_leaves_nothing(
    server: Server, vm: vm_pb2.Vm, ports: tuple[int, int], how: str
) -> None:
    sleep(server, vm, how)
    socket.create_connection(("127.0.0.1", ports[0])).close()
    becomes(server, vm, RUNNING)
    assert say(ports[0], b"next\n") == b"heard next\n"


@pytest.mark.parametrize("how", ["pause", "hibernate"])
def test_a_datagram_wakes_it(server: Server, vm: vm_pb2.Vm, ports: tuple[int, int], how: str) -> None:
    sleep(server, vm, how)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.connect(("127.0.0.1", ports[1]))
        caller.settimeout(1)
        for _ in range(60):
            try:
                caller.send(b"hello")
                assert caller.recv(100) == b"heard hello"
                break
            except TimeoutError:
                continue
            except ConnectionRefusedError:  # as it may be for an instant while the port changes hands
                time.sleep(0.1)
        else:
            raise AssertionError("no answer")
    becomes(server, vm, RUNNING)


def test_a_paused_guest_that_nobody_calls_stays_so(server: Server, vm: vm_pb2.Vm) -> None:
    sleep(server, vm, "pause")
    time.sleep(1.5)
    assert now(server, vm).state == PAUSED


@pytest.mark.parametrize("how", mostly_slow(["pause", "hibernate"], "hibernate"))
def test_a_server_that_comes_back_listens_again(
    server: Server, vm: vm_pb2.Vm, ports: tuple[int, int], how: str
) -> None:
    sleep(server, vm, how)
    server.kill()
    server.start()
    assert now(server, vm).state == (PAUSED if how == "pause" else HIBERNATED)
    assert say(ports[0], b"hello\n") == b"heard hello\n"


@pytest.mark.parametrize("after", mostly_slow([0.02, 0.1, 0.3], 0.1))
def test_a_server_that_is_killed_amid_the_wake_wakes_it_for_the_next_one(
    server: Server, vm: vm_pb2.Vm, ports: tuple[int, int], after: float
) -> None:
    sleep(server, vm, "hibernate")
    with socket.create_connection(("127.0.0.1", ports[0])) as caller:
        time.sleep(after)
        server.kill()
        caller.settimeout(30)
        assert _is_over(caller)
    server.start()
    assert len(vmms(server, vm)) <= 1
    assert say(ports[0], b"hello\n") == b"heard hello\n"
    assert len(vmms(server, vm)) == 1
    assert now(server, vm).boot_id == vm.boot_id


def test_of_one_that_is_stopped_the_ports_are_nobodys(server: Server, vm: vm_pb2.Vm, ports: tuple[int, int]) -> None:
    sleep(server, vm, "hibernate")
    server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0]))
    with socket.create_server(("127.0.0.1", ports[0])):
        pass


def test_who_waits_for_one_that_cannot_wake_is_reset_and_it_is_not_tried_for_ever(
    server: Server, vm: vm_pb2.Vm, ports: tuple[int, int]
) -> None:
    sleep(server, vm, "hibernate")
    stream = server.state / "vms" / vm.id / "memory" / "stream"
    os.truncate(stream, stream.stat().st_size // 2)
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", ports[0])) as caller, pytest.raises(ConnectionResetError):
            caller.recv(1)
    assert "damaged" in now(server, vm).sleep_error
    assert now(server, vm).state == HIBERNATED
    failures = [event for event in _events(server, vm) if event.kind == event_pb2.EVENT_KIND_VM_SLEEP_FAILED]
    assert 1 <= len(failures) <= 5
    server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=vm.id))


def test_who_floods_it_is_let_go_and_others_are_served_afterwards(
    server: Server, vm: vm_pb2.Vm, ports: tuple[int, int]
) -> None:
    sleep(server, vm, "hibernate")
    silent = [socket.socket() for _ in range(600)]
    before = _descriptors(server)
    for caller in silent:
        caller.setblocking(False)
        caller.connect_ex(("127.0.0.1", ports[0]))
    becomes(server, vm, RUNNING)
    assert _descriptors(server) - before < 1000
    for caller in silent:
        caller.close()
    assert say(ports[0], b"hello\n") == b"heard hello\n"


def test_a_port_that_another_program_takes_while_no_server_is_there_is_told(
    server: Server, vm: vm_pb2.Vm, ports: tuple[int, int]
) -> None:
    sleep(server, vm, "hibernate")
    server.stop()
    with socket.create_server(("127.0.0.1", ports[0])):
        server.start()
        assert now(server, vm).state == HIBERNATED
        assert refused(server.vms.WakeVm, vm_pb2.WakeVmRequest(vm=vm.id)).reason == "IN_USE"
        assert f"port {ports[0]}" in now(server, vm).sleep_error
    deadline = time.monotonic() + 30
    while True:
        try:
            assert say(ports[0], b"hello\n") == b"heard hello\n"
            break
        except ConnectionRefusedError:  # until the server has it
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _events(server: Server, vm: vm_pb2.Vm) -> list[event_pb2.Event]:
    request = event_pb2.WatchEventsRequest(after=0, no_follow=True, resource=vm.id)
    watch = server.channel.unary_stream(
        "/ingle.v1.EventService/WatchEvents",
        request_serializer=event_pb2.WatchEventsRequest.SerializeToString,
        response_deserializer=event_pb2.WatchEventsResponse.FromString,
    )
    return [answer.event for answer in watch(request) if answer.HasField("event")]


def _descriptors(server: Server) -> int:
    assert server.process is not None
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def _is_over(caller: socket.socket) -> bool:
    try:
        return caller.recv(1) == b""
    except ConnectionError:
        return True

"""Names for guests: who answers them, where they are led, and how many are asked."""

import socket
import time
from contextlib import ExitStack, suppress

import pytest

from helper.guests import SOON, ask, echo
from helper.process import UID, Helper
from ingle.helper.v1 import helper_pb2 as pb

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


@pytest.mark.parametrize("kind", [TCP, UDP])
def test_nobody_but_the_servers_user_answers_dns_whoever_has_the_port(helper: Helper, kind: socket.SocketKind) -> None:
    with helper.guest(2) as guest:
        for gateway, source in ("10.213.0.1", guest.ipv4), ("fd69:6e67:6c65::1", guest.ipv6):
            with echo(helper.namespace, 10053, kind, UID + 1):
                assert ask(guest.namespace, gateway, 53, kind, timeout=SOON) is None
            with echo(helper.namespace, 10053, kind, UID):
                assert ask(guest.namespace, gateway, 53, kind) == source


@pytest.mark.parametrize("kind", [TCP, UDP])
def test_nobody_else_tells_the_host_the_names_of_vms(helper: Helper, kind: socket.SocketKind) -> None:
    helper.tap(2)
    with echo(helper.namespace, 10053, kind, UID + 1):
        assert ask(helper.namespace, "127.0.0.1", 10053, kind, timeout=SOON) is None
    with echo(helper.namespace, 10053, kind, UID):
        assert ask(helper.namespace, "127.0.0.1", 10053, kind) == "127.0.0.1"


def test_dns_is_led_to_where_it_is_served_and_stays_there(helper: Helper) -> None:
    with helper.guest(2) as guest, echo(helper.namespace, 20053, UDP, UID):
        helper.stub.EnsureNetwork(pb.EnsureNetworkRequest(network=0, dns_port=20053))
        for _ in range(2):
            assert ask(guest.namespace, "10.213.0.1", 53, UDP) == guest.ipv4
            helper.stub.EnsureNetwork(pb.EnsureNetworkRequest(network=0))
        with echo(helper.namespace, 10053, UDP, UID):
            helper.stub.EnsureNetwork(pb.EnsureNetworkRequest(network=0, dns_port=10053))
            with helper.namespace.do(lambda: socket.socket(socket.AF_INET, UDP)) as taken:
                taken.bind(("10.213.0.1", 0))
            assert ask(guest.namespace, "10.213.0.1", 53, UDP) == guest.ipv4


def test_a_vm_that_asks_for_names_without_end_leaves_room_for_others(helper: Helper) -> None:
    heard = {"10.213.0.2": 0, "10.213.0.3": 0}
    with helper.guest(2, 1) as greedy, helper.guest(3, 2) as modest, ExitStack() as stack:
        server, *senders = (
            stack.enter_context(each.do(lambda: socket.socket(socket.AF_INET, UDP)))
            for each in (helper.namespace, greedy.namespace, modest.namespace)
        )
        server.bind(("", 10053))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        server.setblocking(False)
        began = time.monotonic()
        for number in range(20_000):
            for sender in senders if number % 1000 == 0 else senders[:1]:
                sender.sendto(b"hello", ("10.213.0.1", 53))
            with suppress(BlockingIOError):
                heard[server.recvfrom(100)[1][0]] += 1
        server.settimeout(SOON)
        with suppress(TimeoutError):
            while True:
                heard[server.recvfrom(100)[1][0]] += 1
        assert heard[greedy.ipv4] <= 2000 + 1000 * (time.monotonic() - began)
        assert heard[modest.ipv4] == 20

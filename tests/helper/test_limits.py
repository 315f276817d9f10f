"""What a VM sends and receives in a second, where the helper limits it: counted by who is at the other end of a tap.

No test says how fast something is: a limit is a most, whatever the machine is busy with."""

import socket
import threading
import time

import pytest

from helper.guests import Guest
from helper.process import Helper, eventually, vm
from ingle.helper.v1 import helper_pb2 as pb

RATE = 1 << 20
SENT = 4 * RATE


def limit(helper: Helper, slot: int, rate: int) -> None:
    helper.stub.LimitTap(pb.LimitTapRequest(vm_id=vm(1), slot=slot, bytes_per_second=rate))


Way = tuple[Guest | Helper, Guest | Helper, str]
"""From whom to whom, at which address."""


def carried(source: Guest | Helper, target: Guest | Helper, address: str, rate: int = RATE) -> float:
    """Bytes a second at which TCP carries SENT from one to the other, without what a second that nobody used was good
    for."""
    with target.namespace.do(lambda: socket.create_server(("", 4000))) as server:
        caller = source.namespace.do(lambda: socket.create_connection((address, 4000), timeout=60))
        there, _ = server.accept()
        with caller, there:
            there.settimeout(60)
            threading.Thread(target=caller.sendall, args=(bytes(SENT),), daemon=True).start()
            began, left = time.monotonic(), SENT
            while left:
                left -= len(there.recv(1 << 20))
            return (SENT - rate) / (time.monotonic() - began)


def test_what_a_vm_sends_and_receives_is_no_more_than_its_limit_until_it_is_taken_away(helper: Helper) -> None:
    with helper.guest(2) as guest:
        ways: tuple[Way, ...] = ((guest, helper, "10.213.0.1"), (helper, guest, guest.ipv4))
        helper.namespace.run("nft", "insert", "rule", "inet", "ingle", "input", "tcp", "dport", "4000", "accept")
        open_ = [carried(*way) for way in ways]
        limit(helper, 2, RATE)
        limited = [carried(*way) for way in ways]
        assert max(limited) <= RATE * 1.01
        assert min(open_) > max(limited)
        limit(helper, 2, 2 * RATE)  # another one takes its place
        assert max(carried(*way, 2 * RATE) for way in ways) <= 2 * RATE * 1.01
        limit(helper, 2, 0)
        assert "rate" not in helper.namespace.run("nft", "list", "limits")
        assert min(carried(*way) for way in ways) > max(limited)


def test_a_limit_is_one_vms_and_between_two_the_lower_counts(helper: Helper) -> None:
    with helper.guest(2) as first, helper.guest(3) as second:
        limit(helper, 2, RATE)
        assert carried(first, second, second.ipv4) <= RATE * 1.01
        assert carried(second, first, first.ipv4) <= RATE * 1.01
        assert [tap.bytes_per_second for tap in helper.stub.List(pb.ListRequest()).taps] == [RATE, 0]
        third = helper.tap(4)
        assert third.bytes_per_second == 0


def test_a_limit_goes_with_its_tap_and_comes_with_a_reconcile(helper: Helper) -> None:
    helper.tap(2)
    limit(helper, 2, RATE)
    helper.stub.DeleteTap(pb.DeleteTapRequest(vm_id=vm(1), slot=2))
    assert "rate" not in helper.namespace.run("nft", "list", "limits")
    assert helper.tap(2).bytes_per_second == 0
    wanted = pb.ReconcileRequest(networks=[0], taps=[pb.WantedTap(vm_id=vm(1), slot=2, bytes_per_second=RATE)])
    assert list(helper.stub.Reconcile(wanted).added) == [f"limit of 2 to {RATE} bytes a second"]
    assert list(helper.stub.Reconcile(wanted).added) == []
    assert helper.stub.List(pb.ListRequest()).taps[0].bytes_per_second == RATE


@pytest.mark.parametrize("flushed", [False, True])
def test_a_helper_that_was_killed_keeps_the_limits_and_one_whose_rules_somebody_flushed_makes_them_anew(
    own_helper: Helper, flushed: bool
) -> None:
    helper = own_helper
    helper.tap(2)
    limit(helper, 2, RATE)
    if flushed:
        helper.namespace.run("nft", "flush", "ruleset")
        limit(helper, 2, 2 * RATE)
        limit(helper, 2, RATE)
    else:
        helper.kill()
        helper.start()
    eventually(lambda: f"from-2-{RATE}" in helper.namespace.run("nft", "list", "limits"))
    with helper.guest(2) as guest:
        assert carried(helper, guest, guest.ipv4) <= RATE * 1.01

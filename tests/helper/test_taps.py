"""Bridges and taps: all follows from the slot, the owner alone may open one, nothing of others is touched."""

import errno
import os

import pytest

from harness import refused
from helper.guests import open_tap
from helper.process import UID, Helper, eventually, helper_in_namespace, vm
from ingle.helper.v1 import helper_pb2 as pb


def listed(helper: Helper) -> pb.ListResponse:
    response: pb.ListResponse = helper.stub.List(pb.ListRequest())
    return response


def test_a_tap_and_its_network_are_what_their_numbers_say(helper: Helper) -> None:
    network = helper.stub.EnsureNetwork(pb.EnsureNetworkRequest(network=3)).network
    assert (network.interface, network.ipv4_subnet, network.ipv4_gateway) == ("ingb3", "10.213.3.0/24", "10.213.3.1")
    assert (network.ipv6_subnet, network.ipv6_gateway) == ("fd69:6e67:6c65:3::/64", "fd69:6e67:6c65:3::1")
    tap = helper.tap(3 * 256 + 7)
    assert (tap.vm_id, tap.interface, tap.mac) == (vm(1), "ingt775", "02:69:6e:67:03:07")
    assert (tap.ipv4, tap.ipv6) == ("10.213.3.7", "fd69:6e67:6c65:3::7")
    shown = helper.namespace.run("ip", "-details", "link", "show", "ingt775")
    assert f"user {UID} " in shown
    assert "master ingb3" in shown
    addresses = helper.namespace.run("ip", "address", "show", "ingb3")
    assert "inet 10.213.3.1/24" in addresses
    assert "inet6 fd69:6e67:6c65:3::1/64" in addresses
    assert "tentative" not in addresses


def test_making_and_deleting_twice_is_as_good_as_once(helper: Helper) -> None:
    assert helper.tap(2) == helper.tap(2)
    again = helper.stub.CreateTap(pb.CreateTapRequest(vm_id=vm(1), slot=2))
    assert again.tap.slot == 2
    for _ in range(2):
        helper.stub.DeleteTap(pb.DeleteTapRequest(vm_id=vm(1), slot=2))
    for _ in range(2):
        helper.stub.DeleteNetwork(pb.DeleteNetworkRequest(network=0))
    assert helper.namespace.links() == {"lo"}


def test_a_slot_is_one_vms_and_another_can_neither_take_nor_delete_it(helper: Helper) -> None:
    helper.tap(2)
    error = refused(helper.stub.CreateTap, pb.CreateTapRequest(vm_id=vm(2), slot=2))
    assert (error.reason, vm(1) in error.message) == ("IN_USE", True)
    assert refused(helper.stub.DeleteTap, pb.DeleteTapRequest(vm_id=vm(2), slot=2)).reason == "WRONG_STATE"
    assert [tap.vm_id for tap in listed(helper).taps] == [vm(1)]


def test_a_tap_needs_its_network_and_a_network_in_use_stays(helper: Helper) -> None:
    error = refused(helper.stub.CreateTap, pb.CreateTapRequest(vm_id=vm(1), slot=2))
    assert (error.reason, error.remedy) == ("WRONG_STATE", "EnsureNetwork comes first")
    helper.tap(2)
    assert refused(helper.stub.DeleteNetwork, pb.DeleteNetworkRequest(network=0)).reason == "IN_USE"


def test_the_owner_opens_a_tap_and_another_uid_does_not(helper: Helper) -> None:
    helper.tap(2)
    with pytest.raises(PermissionError):
        open_tap(helper.namespace, "ingt2", UID + 1)
    os.close(open_tap(helper.namespace, "ingt2", UID))


def test_a_deleted_tap_is_lost_to_who_still_has_it_open(helper: Helper) -> None:
    helper.tap(2)
    held = open_tap(helper.namespace, "ingt2", UID)
    helper.stub.DeleteTap(pb.DeleteTapRequest(vm_id=vm(1), slot=2))
    helper.tap(2, owner=2)
    with pytest.raises(OSError, match=os.strerror(errno.EBADFD)):
        os.write(held, bytes(60))
    os.close(held)
    os.close(open_tap(helper.namespace, "ingt2", UID))


def test_somebody_elses_interface_with_a_name_like_ours_is_left_alone(helper: Helper) -> None:
    helper.stub.EnsureNetwork(pb.EnsureNetworkRequest(network=0))
    theirs = ("ingt5", "ingb9", "ingle0", "ingt6")
    for name in theirs[:3]:
        helper.namespace.run("ip", "link", "add", name, "type", "bridge")
    helper.namespace.run("ip", "tuntap", "add", theirs[3], "mode", "tap", "user", "1")
    before = [helper.namespace.run("ip", "-details", "link", "show", name) for name in theirs]
    try:
        for slot in (5, 6):
            error = refused(helper.stub.CreateTap, pb.CreateTapRequest(vm_id=vm(1), slot=slot))
            assert (error.reason, error.remedy) == ("IN_USE", f"ip link delete ingt{slot}")
        assert refused(helper.stub.EnsureNetwork, pb.EnsureNetworkRequest(network=9)).reason == "IN_USE"
        assert listed(helper).taps == []
        helper.stub.Reconcile(pb.ReconcileRequest(networks=[0]))
        assert [helper.namespace.run("ip", "-details", "link", "show", name) for name in theirs] == before
    finally:
        for name in theirs:
            helper.namespace.run("ip", "link", "delete", name)


def test_a_tap_that_somebody_removed_is_made_again(helper: Helper) -> None:
    helper.tap(2)
    helper.namespace.run("ip", "link", "delete", "ingt2")
    assert [tap.present for tap in listed(helper).taps] == [False]
    helper.tap(2)
    assert [tap.present for tap in listed(helper).taps] == [True]


def test_the_host_knows_its_neighbours_and_forgets_them_with_the_tap(helper: Helper) -> None:
    helper.tap(2)
    helper.namespace.run("ip", "neigh", "replace", "10.213.0.3", "lladdr", "02:00:00:00:00:09", "dev", "ingb0")
    helper.tap(3)
    neighbours = helper.namespace.run("ip", "neigh")
    assert "10.213.0.3 dev ingb0 lladdr 02:69:6e:67:00:03 PERMANENT" in neighbours
    assert "fd69:6e67:6c65::3 dev ingb0 lladdr 02:69:6e:67:00:03 PERMANENT" in neighbours
    for slot in (2, 3):
        helper.stub.DeleteTap(pb.DeleteTapRequest(vm_id=vm(1), slot=slot))
    assert "PERMANENT" not in helper.namespace.run("ip", "neigh")


def test_spare_taps_are_kept_up_to_a_limit_and_belong_to_nobody() -> None:
    with helper_in_namespace(spare_taps=2) as helper:
        for slot in range(2, 7):
            helper.tap(slot)
        for slot in range(2, 7):
            helper.stub.DeleteTap(pb.DeleteTapRequest(vm_id=vm(1), slot=slot))
        kept = {"ingb0", "lo", "ingt2", "ingt3"}
        eventually(lambda: helper.namespace.links() == kept)
        assert listed(helper).parked_taps == 2
        with pytest.raises(PermissionError):
            open_tap(helper.namespace, "ingt2", UID)
        index = helper.namespace.run("cat", "/proc/net/dev_snmp6/ingt2").split()[1]
        helper.tap(2, owner=9)
        assert helper.namespace.run("cat", "/proc/net/dev_snmp6/ingt2").split()[1] == index, "not a new one"
        os.close(open_tap(helper.namespace, "ingt2", UID))
        assert helper.stop() == 0
        assert helper.namespace.links() == {"lo", "ingb0", "ingt2"}


def test_more_taps_than_the_policy_allows_are_refused() -> None:
    with helper_in_namespace(max_taps=2) as helper:
        helper.tap(2)
        helper.tap(3)
        assert refused(helper.stub.CreateTap, pb.CreateTapRequest(vm_id=vm(1), slot=4)).reason == "IN_USE"


def test_no_ipv6_pool_means_no_ipv6() -> None:
    with helper_in_namespace(ipv6_pool="") as helper:
        assert helper.tap(2).ipv6 == ""
        assert "inet6" not in helper.namespace.run("ip", "address", "show", "dev", "ingb0", "scope", "global")


def test_a_hundred_cycles_leave_nothing(helper: Helper) -> None:
    for cycle in range(100):
        helper.tap(2 + cycle % 3, owner=cycle)
        helper.nat(2 + cycle % 3, owner=cycle)
        helper.stub.DeleteTap(pb.DeleteTapRequest(vm_id=vm(cycle), slot=2 + cycle % 3))
    helper.stub.Reconcile(pb.ReconcileRequest())
    assert helper.namespace.links() == {"lo"}
    assert helper.namespace.rules() == ""
    assert helper.namespace.run("ip", "neigh") == ""
    assert listed(helper) == pb.ListResponse()

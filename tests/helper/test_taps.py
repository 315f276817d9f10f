"""Bridges and taps: all follows from the slot, the owner alone may open one, nothing of others is touched."""

import errno
import os

import pytest

from harness import refused
from helper.guests import open_tap
from helper.process import UID, Helper, eventually, helper_in_namespace, vm
from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper.names import LOOSE, OUR_GROUP, tap_name

IFF_UP = 1  # linux/if.h


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
    interface, bridge = helper.namespace.link("ingt775"), helper.namespace.link("ingb3")
    assert interface.get(("linkinfo", "data")).get("tun_owner") == UID
    assert interface.get("master") == bridge["index"]
    assert {interface.get("group"), bridge.get("group")} == {OUR_GROUP}
    assert helper.namespace.addresses("ingb3") == {"10.213.3.1/24", "fd69:6e67:6c65:3::1/64"}
    assert "tentative" not in helper.namespace.run("ip", "address", "show", "ingb3")


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
    macs = {slot: f"02:69:6e:67:00:0{slot}" for slot in (2, 3)}
    assert helper.namespace.neighbours("ingb0") == {
        address: mac
        for slot, mac in macs.items()
        for address in (f"10.213.0.{slot}", f"fd69:6e67:6c65::{slot}", f"fe80::69:6eff:fe67:{slot}")
    }
    for slot in (2, 3):
        helper.stub.DeleteTap(pb.DeleteTapRequest(vm_id=vm(1), slot=slot))
    assert helper.namespace.neighbours("ingb0") == {}


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
        index = helper.namespace.link("ingt2")["index"]
        helper.tap(2, owner=9)
        assert helper.namespace.link("ingt2")["index"] == index, "not a new one"
        os.close(open_tap(helper.namespace, "ingt2", UID))
        assert helper.stop() == 0
        assert helper.namespace.links() == {"lo", "ingb0", "ingt2"}


def test_more_taps_than_the_policy_allows_are_refused() -> None:
    with helper_in_namespace(max_taps=2) as helper:
        helper.tap(2)
        helper.tap(3)
        assert refused(helper.stub.CreateTap, pb.CreateTapRequest(vm_id=vm(1), slot=4)).reason == "IN_USE"


def test_a_tap_that_leads_nowhere_takes_what_comes_and_does_nothing_with_it(helper: Helper) -> None:
    slot = LOOSE[3]
    for _ in range(2):
        tap = helper.stub.CreateTap(pb.CreateTapRequest(vm_id=vm(1), slot=slot)).tap
    assert (tap.interface, tap.ipv4, tap.ipv6, tap.nat) == (tap_name(slot), "", "", False)
    assert [tap.present for tap in listed(helper).taps] == [True]
    interface = helper.namespace.link(tap.interface)
    assert (interface.get("master"), interface["flags"] & IFF_UP, interface.get("group")) == (None, 0, OUR_GROUP)
    with pytest.raises(PermissionError):
        open_tap(helper.namespace, tap.interface, UID + 1)
    opened = open_tap(helper.namespace, tap.interface, UID)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        os.write(opened, bytes(60))
    helper.kill()
    helper.start()
    assert helper.namespace.link(tap.interface)["index"] == interface["index"], "who has it open keeps it"
    os.close(opened)
    helper.stub.DeleteTap(pb.DeleteTapRequest(vm_id=vm(1), slot=slot))
    with pytest.raises(PermissionError):
        open_tap(helper.namespace, tap.interface, UID)
    helper.stub.CreateTap(pb.CreateTapRequest(vm_id=vm(2), slot=slot))
    os.close(open_tap(helper.namespace, tap.interface, UID))
    helper.stub.Reconcile(pb.ReconcileRequest())
    assert helper.namespace.links() == {"lo"}


def test_a_tap_that_led_nowhere_and_that_somebody_has_changed_is_not_used(helper: Helper) -> None:
    slot = LOOSE[0]
    tap = helper.stub.CreateTap(pb.CreateTapRequest(vm_id=vm(1), slot=slot)).tap
    helper.namespace.run("ip", "link", "set", tap.interface, "up")
    helper.kill()
    helper.start()
    error = refused(helper.stub.CreateTap, pb.CreateTapRequest(vm_id=vm(1), slot=slot))
    assert (error.reason, error.remedy) == ("IN_USE", f"ip link delete {tap.interface}")


def test_no_ipv6_pool_means_no_ipv6() -> None:
    with helper_in_namespace(ipv6_pool="") as helper:
        assert helper.tap(2).ipv6 == ""
        assert helper.namespace.addresses("ingb0") == {"10.213.0.1/24"}


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

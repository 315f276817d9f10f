"""Killed at any instant, the next helper knows exactly what there is, and Reconcile makes it exactly what is wanted."""

import random
import subprocess
import threading
import time
from contextlib import suppress

import grpc
import pytest

from helper.process import Helper, vm
from ingle.helper.v1 import helper_pb2 as pb

KILLS = 5
SLOTS = (*range(2, 8), *range(258, 264))


def reconcile(helper: Helper, wanted: pb.ReconcileRequest) -> None:
    helper.stub.Reconcile(wanted)


def assert_exactly(helper: Helper, networks: set[int], slots: set[int], nat: set[int]) -> None:
    """The kernel has these networks, taps and elements, and nothing else of ours."""
    assert helper.namespace.links() == {"lo", *(f"ingt{n}" for n in slots), *(f"ingb{n}" for n in networks)}
    rules = helper.namespace.rules()
    for slot in SLOTS:
        assert (f'"ingt{slot}" . 02:69:6e:67:' in rules) == (slot in slots)
        assert (f"10.213.{slot >> 8}.{slot & 255}" in elements(rules, "nat4")) == (slot in nat)


def elements(rules: str, name: str) -> list[str]:
    _, _, after = rules.partition(f"set {name} {{")
    listed = after.partition("}\n\n")[0].partition("elements = {")[2].partition("}")[0]
    return listed.replace(",", " ").split()


def test_a_restart_changes_nothing_of_what_there_is(own_helper: Helper) -> None:
    helper = own_helper
    helper.tap(2, 1)
    helper.tap(258, 2)
    helper.nat(258, 2)
    port = pb.PublishedPort(vm_id=vm(1), slot=2, protocol=pb.PROTOCOL_TCP, host_port=8080, vm_port=80)
    helper.stub.PublishPort(pb.PublishPortRequest(port=port))
    listed, rules = helper.stub.List(pb.ListRequest()), helper.namespace.rules()
    indexes = helper.namespace.indexes()
    for end in (helper.kill, helper.stop):
        end()
        helper.start()
        assert helper.stub.List(pb.ListRequest()) == listed
        assert helper.namespace.rules() == rules
        assert helper.namespace.indexes() == indexes, "the same interfaces, not others with their names"


@pytest.mark.parametrize(
    "seed",
    [
        1,
        *(
            pytest.param(n, marks=pytest.mark.skipif("not config.getoption('--slow')", reason="--slow"))
            for n in range(2, 11)
        ),
    ],
)
def test_killed_at_random_instants_under_load(own_helper: Helper, seed: int) -> None:
    helper = own_helper
    chance = random.Random(seed)
    for _ in range(KILLS):
        stopping = threading.Event()
        load = threading.Thread(target=_load, args=(helper, random.Random(chance.random()), stopping))
        load.start()
        time.sleep(chance.uniform(0.05, 0.6))
        assert helper.process is not None
        helper.process.kill()  # while the load goes on
        stopping.set()
        load.join()
        helper.kill()
        helper.start()
        listed = helper.stub.List(pb.ListRequest())
        assert all(tap.present for tap in listed.taps), "what is journalled is there"
        networks, slots = {each.network for each in listed.networks}, {tap.slot for tap in listed.taps}
        assert_exactly(helper, networks, slots, {tap.slot for tap in listed.taps if tap.nat})
        slots = {slot for slot in SLOTS if chance.random() < 0.5}
        nat = {slot for slot in slots if chance.random() < 0.5}
        taps = [pb.WantedTap(vm_id=vm(slot), slot=slot, nat=slot in nat) for slot in slots]
        networks = {slot >> 8 for slot in slots}
        reconcile(helper, pb.ReconcileRequest(networks=networks, taps=taps))
        assert_exactly(helper, networks, slots, nat)
        assert {tap.slot for tap in helper.stub.List(pb.ListRequest()).taps} == slots
    reconcile(helper, pb.ReconcileRequest())
    assert helper.namespace.links() == {"lo"}
    assert helper.namespace.rules() == ""


def _load(helper: Helper, chance: random.Random, stopping: threading.Event) -> None:
    """Taps come and go, until nobody answers."""
    stub = helper.stub
    while not stopping.is_set():
        slot = chance.choice(SLOTS)
        with suppress(grpc.RpcError, ValueError):
            if chance.random() < 0.6:
                changes = [
                    pb.Change(ensure_network=pb.EnsureNetworkRequest(network=slot >> 8)),
                    pb.Change(create_tap=pb.CreateTapRequest(vm_id=vm(slot), slot=slot)),
                    pb.Change(set_nat=pb.SetNatRequest(vm_id=vm(slot), slot=slot, enabled=chance.random() < 0.5)),
                ]
                stub.Apply(pb.ApplyRequest(changes=changes), timeout=5)
            else:
                stub.DeleteTap(pb.DeleteTapRequest(vm_id=vm(slot), slot=slot), timeout=5)


def test_what_a_lost_journal_listed_is_found_by_its_tags_and_removed(own_helper: Helper) -> None:
    helper = own_helper
    helper.tap(2)
    helper.tap(258, 2)
    helper.kill()
    (helper.runtime / "journal").unlink()
    helper.start()
    assert helper.namespace.links() == {"lo"}
    assert helper.namespace.rules() == ""


def test_what_a_smaller_pool_has_no_place_for_is_given_up(own_helper: Helper) -> None:
    helper = own_helper
    helper.tap(2, 1)
    helper.tap(770, 2)
    helper.nat(770, 2)
    helper.stop()
    with helper.policy.open("a") as policy:
        policy.write('ipv4_pool = "10.213.0.0/24"\n')
    helper.start()
    assert [tap.slot for tap in helper.stub.List(pb.ListRequest()).taps] == [2]
    assert_exactly(helper, {0}, {2}, set())


def test_a_journal_that_is_none_is_told_and_kept(own_helper: Helper) -> None:
    own_helper.stop()
    journal = own_helper.runtime / "journal"
    journal.write_text("nonsense\n")
    started = subprocess.run(own_helper.argv(), capture_output=True, text=True, check=False, timeout=60)
    assert (started.returncode, "move it away" in started.stderr) == (1, True)
    assert journal.read_text() == "nonsense\n"


def test_drift_is_put_right_by_reconcile(helper: Helper) -> None:
    wanted = pb.ReconcileRequest(networks=[0], taps=[pb.WantedTap(vm_id=vm(1), slot=2)])
    reconcile(helper, wanted)
    rules, links = helper.namespace.rules(), helper.namespace.run("ip", "-br", "address")
    for damage in (
        "ip link delete ingt2",
        "ip link delete ingb0",
        "ip link set ingb0 down",
        "ip link set ingt2 nomaster",
        "ip link set ingt2 down",
        "ip address flush dev ingb0",
        "nft delete table inet ingle",
        "nft flush table bridge ingle",
        "nft add element inet ingle nat4 { 10.213.0.2 }",
        "ip tuntap add ingle9 mode tap",
    ):
        helper.namespace.run(*damage.split())
        reconcile(helper, wanted)
        assert helper.namespace.rules() == rules, damage
        if "ingle9" in damage:
            helper.namespace.run("ip", "link", "delete", "ingle9")
        assert shape(helper.namespace.run("ip", "-br", "address")) == shape(links), damage


def shape(brief: str) -> set[tuple[str, ...]]:
    """Names and addresses; whether a carrier was noticed already is the kernel's affair."""
    return {(line.split()[0], *line.split()[2:]) for line in brief.splitlines()}

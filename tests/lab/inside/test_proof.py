"""Whatever is killed or given up, and whenever: the machine has exactly what the store says."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from busy import Client, busy, give_up, spec
from ingle.v1 import operation_pb2, vm_pb2
from lab.inside.commands import User, lab_run
from lab.inside.exactly import what_the_store_says, what_there_is
from slow import slow

UNITS = ("ingle.service", "ingle-helper.service", "ingle-helper-dm.service")
STAGES = 14  # of a create
KEPT = 100  # the number of a VM that is none of those
UP_SECONDS = 120.0


RecordProperty = Callable[[str, object], None]


def assert_exactly(client: Client) -> list[dict[str, Any]]:
    """The machine has what the store says, and nothing else. Answers that."""
    said = client.listed()
    lab_run("udevadm", "settle")  # it has loop devices open for a moment, which go when nobody has
    assert what_there_is() == what_the_store_says(said)
    return said


@pytest.fixture(scope="module")
def kept(member: User) -> Iterator[vm_pb2.Vm]:
    """A VM that nobody touches."""
    with Client() as client:
        vm = client.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec(KEPT))).vm
        assert_exactly(client)
    yield vm
    with Client() as client:
        for each in client.listed():
            client.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=each["id"], force=True))
        assert assert_exactly(client) == []


def pids() -> dict[str, int]:
    """Of each unit's main process; 0 when it is not up."""
    shown = lab_run("systemctl", "show", "--property", "Id,MainPID,ActiveState", *UNITS)
    units = [dict(line.split("=", 1) for line in part.splitlines()) for part in shown.split("\n\n") if part.strip()]
    return {unit["Id"]: int(unit["MainPID"]) if unit["ActiveState"] == "active" else 0 for unit in units}


def kill_everything(chance: random.Random) -> None:
    """SIGKILL for helpers and server in any order, close to each other; returns when their next ones are up."""
    # Somebody who kills it so often is no reason for systemd to give up.
    lab_run("systemctl", "reset-failed", *UNITS)
    before = pids()
    assert all(before.values()), before
    for pid in chance.sample(list(before.values()), len(before)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        time.sleep(chance.choice((0.0, chance.uniform(0.0, 0.5))))
    deadline = time.monotonic() + UP_SECONDS
    while not all(pid and pid != before[unit] for unit, pid in pids().items()):
        assert time.monotonic() < deadline, lab_run("journalctl", "--no-pager", "--lines=60")
        time.sleep(0.3)


@slow
def test_creates_given_up_at_every_stage_leave_nothing(member: User, record_property: RecordProperty) -> None:
    with Client() as client:
        record_property("creates", dict(give_up(client, STAGES)))
        assert assert_exactly(client) == []


@slow
def test_a_helper_that_is_killed_in_the_middle_of_a_start_is_not_felt(member: User) -> None:
    with Client() as client:
        begun = client.vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest(spec=spec(0))).operation_id
        killed = False
        for told in client.operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id=begun)):
            if not killed and {"root-disk", "network"} & {stage.name for stage in told.operation.stages}:
                os.kill(pids()["ingle-helper.service"], signal.SIGKILL)
                killed = True
        assert told.operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED, told.operation.error
        assert_exactly(client)
        client.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm="proof-0", force=True))
        assert assert_exactly(client) == []


@slow
def test_interfaces_and_devices_of_others_with_names_like_ours_survive_all_of_it(member: User) -> None:
    lab_run("ip", "link", "add", "ingb9", "type", "bridge")
    lab_run("dmsetup", "create", "ingle-0123456789ab", "--table", "0 8 zero")
    try:
        kill_everything(random.Random(0))
        with Client() as client:
            there_is, said = what_there_is(), what_the_store_says(client.listed())
        theirs = {"ip link": {"ingb9"}, "dmsetup ls": {"ingle-0123456789ab"}}
        assert {name: there_is[name] - said[name] for name in said if there_is[name] != said[name]} == theirs
    finally:
        lab_run("dmsetup", "remove", "ingle-0123456789ab")
        lab_run("ip", "link", "delete", "ingb9")


# In the end: the VMs of this one stay until all of it is over.
@slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_a_random_instant_under_load(kept: vm_pb2.Vm, seed: int, record_property: RecordProperty) -> None:
    chance = random.Random(seed)
    done: Counter[str] = Counter()
    with busy(chance, done):
        time.sleep(chance.uniform(0.1, 4.0))
        kill_everything(chance)
    with Client() as client:
        found = assert_exactly(client)
    assert [vm["boot_id"] for vm in found if vm["id"] == kept.id] == [kept.boot_id]  # it has not felt anything
    record_property("calls", dict(done))
    record_property("VMs", [vm["state"] for vm in found])

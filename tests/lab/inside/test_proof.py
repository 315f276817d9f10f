"""Whatever is killed, given up or done again and again: the machine has exactly what the store says."""

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ingle.v1 import operation_pb2, operation_pb2_grpc, vm_pb2, vm_pb2_grpc
from lab.inside.conftest import User, lab_run
from lab.inside.exactly import what_the_store_says, what_there_is

UNITS = ("ingle.service", "ingle-helper.service", "ingle-helper-dm.service")
KILLS = 10  # for each seed
CLIENTS = 3
NAMES = 5
MEMORY = 128 << 20
UP_SECONDS = 120.0
GIVEN_UP = 13  # creates, each at another stage

slow = pytest.mark.skipif("not config.getoption('--slow')", reason="--slow")

RecordProperty = Callable[[str, object], None]


@contextmanager
def channel() -> Iterator[grpc.Channel]:
    """To the server, as a client of its own."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel("unix:/run/ingle/api.sock", options=options) as opened:
        yield opened


def listed(member: User) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(member.run("ingle", "vm", "list", "--json"))
    return told


def assert_exactly(member: User) -> list[dict[str, Any]]:
    """The machine has what the store says, and nothing else. Answers that."""
    vms = listed(member)
    assert what_there_is() == what_the_store_says(vms)
    return vms


def spec(number: int) -> vm_pb2.VmSpec:
    """VMs of two networks, some with NAT, each with a port of its own."""
    return vm_pb2.VmSpec(
        name=f"proof-{number}",
        memory_bytes=MEMORY,
        network=("default", "backend")[number % 2],
        nat=number % 3 == 0,
        ports=[vm_pb2.PublishedPort(host_port=20000 + number, vm_port=80, protocol=vm_pb2.PROTOCOL_TCP)],
    )


def keep_busy(seed: float, stopping: threading.Event, done: dict[str, int]) -> None:
    """One client: VMs come, go, start and stop, until nobody answers."""
    chance = random.Random(seed)
    with channel() as opened:
        vms = vm_pb2_grpc.VmServiceStub(opened)
        actions: dict[str, Callable[[int], Any]] = {
            "create": lambda number: vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec(number), no_start=True)),
            "create and start": lambda number: vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec(number))),
            "start": lambda number: vms.StartVm(vm_pb2.StartVmRequest(vm=f"proof-{number}")),
            "stop": lambda number: vms.StopVm(
                vm_pb2.StopVmRequest(vm=f"proof-{number}", timeout=Duration(seconds=chance.randrange(3)))
            ),
            "delete": lambda number: vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=f"proof-{number}", force=True)),
        }
        while not stopping.is_set():
            name = chance.choices(list(actions), (3, 4, 4, 2, 3))[0]
            try:
                actions[name](chance.randrange(NAMES))
                done[name] = done.get(name, 0) + 1
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    return


def pids() -> dict[str, int]:
    """Of each unit's main process; 0 when there is none."""
    shown = lab_run("systemctl", "show", "--property", "Id,MainPID,ActiveState", *UNITS)
    units = [dict(line.split("=", 1) for line in part.splitlines()) for part in shown.split("\n\n") if part.strip()]
    return {unit["Id"]: int(unit["MainPID"]) if unit["ActiveState"] == "active" else 0 for unit in units}


def kill_everything(chance: random.Random) -> None:
    """SIGKILL for helpers and server in any order, close to each other; returns when their next ones are up."""
    # Somebody who kills it so often is no reason for systemd to give up.
    lab_run("systemctl", "reset-failed", *UNITS)
    before = pids()
    order = list(before.values())
    chance.shuffle(order)
    for pid in order:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        time.sleep(chance.choice((0.0, 0.0, chance.uniform(0.0, 0.5))))
    deadline = time.monotonic() + UP_SECONDS
    while not all(pid and pid != before[unit] for unit, pid in pids().items()):
        assert time.monotonic() < deadline, lab_run("journalctl", "--no-pager", "--lines=60")
        time.sleep(0.2)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=slow) for seed in (2, 3, 4, 5))])
def test_killed_at_random_instants_under_load(member: User, seed: int, record_property: RecordProperty) -> None:
    chance = random.Random(seed)
    done: dict[str, int] = {}
    with channel() as opened:
        vms = vm_pb2_grpc.VmServiceStub(opened)
        kept = vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec(NAMES + 1))).vm
    assert_exactly(member)
    for number in range(KILLS):
        stopping = threading.Event()
        clients = [
            threading.Thread(target=keep_busy, args=(chance.random(), stopping, done), daemon=True)
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        time.sleep(chance.uniform(0.1, 6.0))
        kill_everything(chance)
        stopping.set()
        for client in clients:
            client.join()
        found = assert_exactly(member)
        record_property(f"after kill {number + 1} of seed {seed}", [vm["state"] for vm in found])
        # One that nobody touched has not felt anything.
        assert [vm["boot_id"] for vm in found if vm["id"] == kept.id] == [kept.boot_id]
    for name, count in done.items():
        record_property(name, count)
    member.run("ingle", "vm", "delete", "--force", *(vm["name"] for vm in listed(member)))
    assert assert_exactly(member) == []


@pytest.mark.parametrize("turn", [0, *(pytest.param(turn, marks=slow) for turn in range(1, 8))])
def test_creates_given_up_at_every_stage_leave_nothing(member: User, turn: int) -> None:
    with channel() as opened:
        vms, operations = vm_pb2_grpc.VmServiceStub(opened), operation_pb2_grpc.OperationServiceStub(opened)
        whole = vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest(spec=spec(0))).operation
        *_, last = operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id=whole.id))
        stages = [stage.name for stage in last.operation.stages]
        assert {"network", "launch", "record"} <= set(stages)
        assert_exactly(member)
        vms.DeleteVm(vm_pb2.DeleteVmRequest(vm="proof-0", force=True))
        for cycle in range(turn * GIVEN_UP, (turn + 1) * GIVEN_UP):
            begun = vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest(spec=spec(cycle))).operation
            wanted = stages[cycle % len(stages)]
            for told in operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id=begun.id)):
                if wanted in {stage.name for stage in told.operation.stages}:
                    with suppress(grpc.RpcError):  # the last stages are over before one can say so
                        operations.CancelOperation(operation_pb2.CancelOperationRequest(operation_id=begun.id))
            with suppress(grpc.RpcError):
                vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=f"proof-{cycle}", force=True))
    assert assert_exactly(member) == []


def test_a_helper_that_is_killed_in_the_middle_of_a_start_is_not_felt(member: User) -> None:
    with channel() as opened:
        vms, operations = vm_pb2_grpc.VmServiceStub(opened), operation_pb2_grpc.OperationServiceStub(opened)
        begun = vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest(spec=spec(0))).operation
        killed = False
        for told in operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id=begun.id)):
            if not killed and {"root-disk", "network"} & {stage.name for stage in told.operation.stages}:
                os.kill(pids()["ingle-helper.service"], signal.SIGKILL)
                killed = True
        assert told.operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED, told.operation.error
        assert_exactly(member)
        vms.DeleteVm(vm_pb2.DeleteVmRequest(vm="proof-0", force=True))
    assert assert_exactly(member) == []


def test_interfaces_and_devices_of_others_with_names_like_ours_survive_all_of_it(member: User) -> None:
    lab_run("ip", "link", "add", "ingb9", "type", "bridge")
    lab_run("dmsetup", "create", "ingle-0123456789ab", "--table", "0 8 zero")
    try:
        kill_everything(random.Random(0))
        theirs = {"ip link": {"ingb9"}, "dmsetup ls": {"ingle-0123456789ab"}}
        there_is, said = what_there_is(), what_the_store_says(listed(member))
        assert {name: there_is[name] - said[name] for name in said if there_is[name] != said[name]} == theirs
    finally:
        subprocess.run(["dmsetup", "remove", "ingle-0123456789ab"], check=True)
        lab_run("ip", "link", "delete", "ingb9")

"""What a Firecracker is told, held against its own description of what it takes."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import firecracker_api
from ingle.api_server.adapters.firecracker import machine
from ingle.api_server.adapters.firecracker.memory import Memory
from ingle.api_server.adapters.vmm.boot import machine_id
from ingle.api_server.model.rates import MOST, DiskRates
from ingle.api_server.model.vm import Acceleration, Init, Vm, VmSettings, VmState
from ingle.api_server.ports.disk import Disk, DiskFormat
from ingle.api_server.ports.engine import LaunchPlan, VmPaths
from ingle.api_server.ports.network import Link

ALONE = LaunchPlan(
    vm=Vm(
        id="0123456789ab",
        name="demo",
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        settings=VmSettings(
            image_id="",
            image_name="",
            kernel_id="",
            kernel_name="",
            engine="firecracker",
            acceleration=Acceleration.AUTO,
            disk_backend="reflink",
            vcpus=2,
            memory_bytes=384 * 2**20 + 4096,
            disk_bytes=2**33,
        ),
        state=VmState.STARTING,
    ),
    paths=VmPaths(state=Path("/state/vm"), runtime=Path("/run/x")),
    vmlinux=Path("/kernels/k/vmlinux"),
    root_disk=Disk(Path("/dev/ingle/disk"), DiskFormat.RAW, is_block=True),
    acceleration=Acceleration.KVM,
    token=b"s" * 32,
)
CONNECTED = replace(ALONE, link=Link("ingle-t1", "02:00:00:00:00:01", "10.0.0.2", 24, "10.0.0.1"))
WITH_INIT = replace(ALONE, vm=replace(ALONE.vm, settings=replace(ALONE.vm.settings, init=Init.IMAGE)))
LIMITED = replace(
    CONNECTED,
    vm=replace(ALONE.vm, settings=replace(ALONE.vm.settings, disk_iops=500, disk_bytes_per_second=1 << 20)),
)
WITH_MODULES = replace(CONNECTED, modules_disk=Path("/kernels/k/modules.squashfs"))
MEMORY = Memory(Path("/snapshots/s/memory"))
ALL = {
    "alone": machine.settings(ALONE),
    "connected": machine.settings(CONNECTED),
    "with init": machine.settings(WITH_INIT),
    "limited": machine.settings(LIMITED),
    "with modules": machine.settings(WITH_MODULES),
    "load alone": [machine.load(ALONE, MEMORY)],
    "load connected": [machine.load(CONNECTED, MEMORY)],
    "save": [machine.save(MEMORY)],
    "run": [machine.Setting(*machine.RUN)],
    "metrics": [machine.metrics("metrics"), machine.Setting(*machine.TELL_METRICS)],
}


def bodies(plan: LaunchPlan) -> dict[str, dict[str, Any]]:
    return {setting.path: setting.body for setting in machine.settings(plan)}


@pytest.mark.parametrize("settings", ALL.values(), ids=ALL)
def test_it_is_what_firecracker_takes(settings: list[machine.Setting]) -> None:
    assert settings
    assert [problem for each in settings for problem in firecracker_api.problems("PUT", each.path, each.body)] == []


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        ("/vsock", {"guest_cid": 3}, "uds_path is missing"),
        ("/vsock", {"guest_cid": 2, "uds_path": "a"}, "too little"),
        ("/entropy", {"amount": 1}, "amount is not known"),
        ("/machine-config", {"vcpu_count": True, "mem_size_mib": 1}, "True is no integer"),
        ("/actions", {"action_type": "Stop"}, "is none of"),
        (
            "/snapshot/load",
            {"snapshot_path": "s", "network_overrides": [{"iface_id": "e"}]},
            "host_dev_name is missing",
        ),
        ("/vmm", {}, "there is no PUT /vmm"),
    ],
)
def test_what_it_would_not_take_is_found(path: str, body: dict[str, object], problem: str) -> None:
    found = firecracker_api.problems("PUT", path, body)
    assert [problem in each for each in found] == [True]


def test_paths_that_a_saved_guest_remembers_lead_into_whatever_directory_it_goes_on_in() -> None:
    told = bodies(ALONE)
    assert told["/drives/root"]["path_on_host"] == "root"
    assert told["/vsock"]["uds_path"] == "agent.sock"
    assert machine.hardware(ALONE) == machine.hardware(replace(ALONE, paths=VmPaths(Path("/other"), Path("/else"))))


def test_what_a_guest_flushes_is_on_the_disk() -> None:
    assert bodies(ALONE)["/drives/root"]["cache_type"] == "Writeback"


def test_a_guest_has_a_card_where_it_has_a_link_and_only_there() -> None:
    assert "/network-interfaces/eth0" not in bodies(ALONE)
    assert bodies(CONNECTED)["/network-interfaces/eth0"] == {
        "iface_id": "eth0",
        "host_dev_name": "ingle-t1",
        "guest_mac": "02:00:00:00:00:01",
    }
    assert machine.load(CONNECTED, MEMORY).body["network_overrides"] == [
        {"iface_id": "eth0", "host_dev_name": "ingle-t1"}
    ]


def test_modules_are_a_disk_behind_the_root_that_is_read_only_and_part_of_the_machine() -> None:
    paths = [setting.path for setting in machine.hardware(WITH_MODULES) if setting.path.startswith("/drives/")]
    assert paths == ["/drives/root", "/drives/modules"]
    drive = bodies(WITH_MODULES)["/drives/modules"]
    assert (drive["path_on_host"], drive["is_read_only"], drive["is_root_device"]) == ("modules", True, False)
    assert machine.hardware(WITH_MODULES) != machine.hardware(CONNECTED)
    assert "/drives/modules" not in bodies(CONNECTED)


def test_a_loaded_guest_stands_still() -> None:
    assert machine.load(ALONE, MEMORY).body["resume_vm"] is False


def test_a_kernel_resets_at_its_end_which_is_what_ends_firecracker() -> None:
    arguments = bodies(ALONE)["/boot-source"]["boot_args"].split()
    assert {"reboot=k", "panic=-1", "console=ttyS0"} <= set(arguments)
    assert "nomodule" not in arguments
    assert "systemd.getty_auto=no" not in arguments
    wanted = {"net.ifnames=0", "systemd.getty_auto=no", f"systemd.machine_id={machine_id(WITH_INIT.vm.id)}"}
    assert wanted <= set(bodies(WITH_INIT)["/boot-source"]["boot_args"].split())


def test_memory_is_whole_mebibytes() -> None:
    assert bodies(ALONE)["/machine-config"] == {"vcpu_count": 2, "mem_size_mib": 384}


def test_the_token_is_told_to_nobody_but_the_guest() -> None:
    argv = machine.command("firecracker", ALONE.vm.id, "vmm.sock")
    assert "ssss" not in repr((argv, machine.settings(CONNECTED)))
    assert argv[argv.index("--id") + 1] == "ingle-0123456789ab"


def test_limits_are_of_a_second_and_no_part_of_the_machine_that_a_memory_is_good_for() -> None:
    assert bodies(LIMITED)["/drives/root"]["rate_limiter"] == {
        "bandwidth": {"size": 1 << 20, "refill_time": 1000},
        "ops": {"size": 500, "refill_time": 1000},
    }
    none = {"size": 0, "refill_time": 0}
    assert bodies(CONNECTED)["/drives/root"]["rate_limiter"] == {"bandwidth": none, "ops": none}
    assert machine.hardware(LIMITED) == machine.hardware(CONNECTED)


@pytest.mark.parametrize("rates", [DiskRates(), DiskRates(100), DiskRates(0, 1 << 20), DiskRates(2**32 - 1, MOST)])
def test_limits_change_while_a_guest_runs(rates: DiskRates) -> None:
    change = machine.limit_disk(rates)
    assert firecracker_api.problems("PATCH", change.path, change.body) == []
    limits = change.body["rate_limiter"]
    assert (limits["ops"]["size"], limits["bandwidth"]["size"]) == (rates.iops, rates.bytes_per_second)

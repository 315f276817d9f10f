"""QEMU's command line, as a reader checks it."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.api_server.adapters.qemu import command
from ingle.api_server.adapters.vmm.boot import machine_id
from ingle.api_server.model.network import Protocol, PublishedPort
from ingle.api_server.model.vm import Acceleration, Init, Vm, VmSettings, VmState
from ingle.api_server.ports.disk import Disk, DiskFormat
from ingle.api_server.ports.engine import LaunchPlan, VmPaths
from ingle.api_server.ports.network import Link

PLAN = LaunchPlan(
    vm=Vm(
        id="0123456789ab",
        name="demo",
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        settings=VmSettings(
            image_id="",
            image_name="",
            kernel_id="",
            kernel_name="",
            engine="qemu",
            acceleration=Acceleration.AUTO,
            disk_backend="qcow2",
            vcpus=2,
            memory_bytes=384 * 2**20,
            disk_bytes=2**33,
        ),
        state=VmState.STARTING,
    ),
    paths=VmPaths(state=Path("/state/with,comma"), runtime=Path("/run/x")),
    vmlinux=Path("/kernels/k/vmlinux"),
    root_disk=Disk(Path('/state/with,comma/a "disk".qcow2'), DiskFormat.QCOW2),
    acceleration=Acceleration.TCG,
    token=b"s" * 32,
)
RAM = Path("/memory/with,comma/ram")


def argv(plan: LaunchPlan = PLAN, *, agent_fd: int | None = 7, ram: Path | None = None) -> list[str]:
    return command.launch("qemu", plan, control_fd=5, ready_fd=6, agent_fd=agent_fd, tsc_khz=2_000_000, ram=ram)


def values(arguments: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(arguments) if name == option]


def test_it_is_stopped_sandboxed_and_owns_nothing_it_was_not_given() -> None:
    arguments = argv()
    assert {"-S", "-nodefaults", "-no-user-config", "-no-reboot"} <= set(arguments)
    assert "spawn=deny" in values(arguments, "-sandbox")[0]
    assert values(arguments, "-name") == ["ingle-0123456789ab"]


def test_the_token_is_not_on_the_command_line_where_every_user_could_read_it() -> None:
    assert not any("ssss" in argument or PLAN.token.hex() in argument for argument in argv())


def test_tcg_is_told_the_clock_and_kvm_finds_it_out() -> None:
    assert "tsc_early_khz=2000000 tsc=nowatchdog" in values(argv(), "-append")[0]
    kvm = argv(replace(PLAN, acceleration=Acceleration.KVM))
    assert "tsc" not in values(kvm, "-append")[0]
    assert values(kvm, "-accel") == ["kvm"]
    assert values(kvm, "-cpu") == ["host"]


def test_an_emulated_processor_lacks_what_is_emulated_slowly() -> None:
    assert {"max", "erms=off", "fsrm=off"} <= set(values(argv(), "-cpu")[0].split(","))


def test_an_images_own_init_is_kept_from_what_would_harm() -> None:
    kernel = values(
        argv(replace(PLAN, vm=replace(PLAN.vm, settings=replace(PLAN.vm.settings, init=Init.IMAGE)))), "-append"
    )[0]
    assert {"net.ifnames=0", "systemd.getty_auto=no", f"systemd.machine_id={machine_id(PLAN.vm.id)}"} <= set(
        kernel.split()
    )
    assert "systemd" not in values(argv(), "-append")[0]


def test_any_path_survives_quoting() -> None:
    disk = json.loads(values(argv(), "-blockdev")[0])
    assert disk["file"]["filename"] == str(PLAN.root_disk.path)
    assert all("with,comma" not in chardev for chardev in values(argv(), "-chardev"))


@pytest.mark.parametrize("told", [DiskFormat.RAW, DiskFormat.QCOW2])
@pytest.mark.parametrize(("is_block", "driver"), [(False, "file"), (True, "host_device")])
@pytest.mark.parametrize("path", ["/d/disk.qcow2", "/d/disk.raw", "/dev/ingle/0123456789ab"])
def test_a_disk_is_opened_as_what_it_is_said_to_be_whatever_its_name(
    path: str, is_block: bool, driver: str, told: DiskFormat
) -> None:
    plan = replace(PLAN, root_disk=Disk(Path(path), told, is_block))
    disk = json.loads(values(argv(plan), "-blockdev")[0])
    assert (disk["driver"], disk["file"]["driver"], disk["file"]["filename"]) == (told.value, driver, path)


def test_modules_are_a_disk_behind_the_root_that_is_read_only() -> None:
    arguments = argv(replace(PLAN, modules_disk=Path("/kernels/with,comma/modules.squashfs")))
    assert [device for device in values(arguments, "-device") if "blk" in device] == [
        "virtio-blk-device,drive=root",
        "virtio-blk-device,drive=modules",
    ]
    disk = json.loads(values(arguments, "-blockdev")[1])
    assert (disk["node-name"], disk["driver"]) == ("modules", "raw")
    assert (disk["read-only"], disk["file"]["read-only"]) == (True, True)
    assert disk["file"]["filename"] == "/kernels/with,comma/modules.squashfs"
    assert not any("modules" in argument for argument in argv())


def test_the_agent_is_behind_a_serial_port_or_on_vsock_never_both_and_on_no_network() -> None:
    at_port, on_vsock = argv(), argv(agent_fd=None)
    assert "socket,id=agent,fd=7,server=on,wait=off" in values(at_port, "-chardev")
    assert "virtserialport,chardev=agent,name=ingle.agent" in values(at_port, "-device")
    assert not any("vsock" in device for device in values(at_port, "-device"))
    assert not any("serial-device" in device for device in values(on_vsock, "-device"))
    assert not any("hostfwd" in argument for argument in (*at_port, *on_vsock))
    assert f"vhost-vsock-device,guest-cid={command.vsock_cid(PLAN.vm.id)}" in values(on_vsock, "-device")


@given(st.integers(min_value=0, max_value=2**48 - 1))
def test_every_vm_id_has_a_vsock_address_that_is_not_reserved(number: int) -> None:
    assert 3 <= command.vsock_cid(f"{number:012x}") < 2**32 - 1


def test_a_vm_in_a_shared_network_gets_the_tap_and_nothing_of_the_hosts_user() -> None:
    link = Link("ingt258", "52:54:00:00:01:02", "10.213.1.2", 24, "10.213.1.1")
    arguments = argv(replace(PLAN, link=link))
    assert values(arguments, "-netdev") == ["tap,id=net,ifname=ingt258,script=no,downscript=no"]
    assert "virtio-net-device,netdev=net,guest_announce=off,mac=52:54:00:00:01:02" in values(arguments, "-device")


def test_published_ports_are_forwarded_by_the_vmm_of_a_network_of_its_own() -> None:
    ports = (PublishedPort(8080, 80), PublishedPort(5353, 53, Protocol.UDP, "127.0.0.1"))
    arguments = argv(replace(PLAN, vm=replace(PLAN.vm, settings=replace(PLAN.vm.settings, ports=ports))))
    assert values(arguments, "-netdev") == [
        "user,id=net,ipv4=on,ipv6=off,hostfwd=tcp::8080-:80,hostfwd=udp:127.0.0.1:5353-:53"
    ]


def test_a_guest_has_ipv6_where_names_are_asked_for_by_that_alone() -> None:
    arguments = command.launch("qemu", PLAN, control_fd=5, ready_fd=6, agent_fd=7, tsc_khz=2_000_000, ipv6=True)
    assert values(arguments, "-netdev") == ["user,id=net,ipv4=on,ipv6=on"]


def test_a_guest_that_goes_on_has_the_same_hardware_and_neither_kernel_nor_initramfs() -> None:
    goes_on = argv(replace(PLAN, memory=Path("/memory")))
    assert values(goes_on, "-incoming") == ["defer"]
    assert not {"-kernel", "-initrd", "-append", "-object"} & set(goes_on)
    for option in ("-M", "-accel", "-cpu", "-smp", "-m", "-device"):
        assert values(goes_on, option) == values(argv(), option)


def test_memory_that_is_shared_is_mapped_privately() -> None:
    arguments = argv(replace(PLAN, memory=RAM.parent), ram=RAM)
    backend = json.loads(values(arguments, "-object")[0])
    assert values(arguments, "-machine") == [f"memory-backend={backend['id']}"]
    size = PLAN.vm.settings.memory_bytes
    assert (backend["mem-path"], backend["share"], backend["size"]) == (str(RAM), False, size)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"id": "1" * 12, "name": "other"}, True),
        ({"settings": replace(PLAN.vm.settings, ports=(PublishedPort(8080, 80),), env={"A": "b"})}, True),
        ({"settings": replace(PLAN.vm.settings, vcpus=1)}, False),
        ({"settings": replace(PLAN.vm.settings, memory_bytes=2**29)}, False),
        ({"settings": replace(PLAN.vm.settings, network="shared")}, False),
    ],
)
def test_hardware_is_what_a_guest_sees_of_it_and_no_vms_own(change: dict[str, Any], same: bool) -> None:
    def hardware(vm: Vm, acceleration: Acceleration, *, on_vsock: bool = False, modules: bool = False) -> list[str]:
        return command.hardware(vm, acceleration, on_vsock=on_vsock, modules_disk=modules)

    told = hardware(PLAN.vm, Acceleration.TCG)
    assert (hardware(replace(PLAN.vm, **change), Acceleration.TCG) == told) is same
    assert hardware(PLAN.vm, Acceleration.KVM) != told
    assert hardware(PLAN.vm, Acceleration.TCG, on_vsock=True) != told
    assert hardware(PLAN.vm, Acceleration.TCG, modules=True) == [*told, "-device virtio-blk-device,drive=modules"]

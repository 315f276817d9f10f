"""QEMU's command line, as a reader checks it."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.api_server.adapters.qemu import command
from ingle.api_server.model.network import Protocol, PublishedPort
from ingle.api_server.model.vm import Acceleration, Init, Vm, VmState
from ingle.api_server.ports.engine import LaunchPlan, VmPaths
from ingle.api_server.ports.network import Link

PLAN = LaunchPlan(
    vm=Vm(
        id="0123456789ab",
        name="demo",
        state=VmState.STARTING,
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
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
    ),
    paths=VmPaths(state=Path("/state/with,comma"), runtime=Path("/run/x")),
    vmlinux=Path("/kernels/k/vmlinux"),
    root_disk=Path('/state/with,comma/a "disk".qcow2'),
    acceleration=Acceleration.TCG,
    token=b"s" * 32,
)


def argv(plan: LaunchPlan = PLAN, *, vsock: bool = False) -> list[str]:
    return command.launch("qemu", plan, control_fd=5, ready_fd=6, tsc_khz=2_000_000, vsock=vsock)


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
    kernel = values(argv(replace(PLAN, vm=replace(PLAN.vm, init=Init.IMAGE))), "-append")[0]
    assert {"net.ifnames=0", "systemd.getty_auto=no"} <= set(kernel.split())
    assert "systemd" not in values(argv(), "-append")[0]


def test_any_path_survives_quoting() -> None:
    disk = json.loads(values(argv(), "-blockdev")[0])
    assert disk["file"]["filename"] == str(PLAN.root_disk)
    assert all("with,comma" not in chardev for chardev in values(argv(), "-chardev"))


@pytest.mark.parametrize(("suffix", "driver"), [(".qcow2", "qcow2"), (".raw", "raw")])
def test_the_disk_format_is_told_never_guessed(suffix: str, driver: str) -> None:
    disk = values(argv(replace(PLAN, root_disk=Path(f"/d/disk{suffix}"))), "-blockdev")[0]
    assert json.loads(disk)["driver"] == driver


@pytest.mark.parametrize(
    ("path", "driver"), [("/d/disk.qcow2", "file"), ("/d/disk.raw", "file"), ("/dev/ingle/0123456789ab", "host_device")]
)
def test_a_file_is_opened_as_one_and_a_block_device_as_one(path: str, driver: str) -> None:
    disk = json.loads(values(argv(replace(PLAN, root_disk=Path(path))), "-blockdev")[0])
    assert (disk["file"]["driver"], disk["file"]["filename"]) == (driver, path)


def test_the_agent_is_behind_a_loopback_port_or_on_vsock_never_both() -> None:
    assert "hostfwd=tcp:127.0.0.1:0-:1024" in values(argv(), "-netdev")[0]
    assert not any("vsock" in device for device in values(argv(), "-device"))
    on_vsock = argv(vsock=True)
    assert "hostfwd" not in values(on_vsock, "-netdev")[0]
    assert f"vhost-vsock-device,guest-cid={command.vsock_cid(PLAN.vm.id)}" in values(on_vsock, "-device")


@given(st.integers(min_value=0, max_value=2**48 - 1))
def test_every_vm_id_has_a_vsock_address_that_is_not_reserved(number: int) -> None:
    assert 3 <= command.vsock_cid(f"{number:012x}") < 2**32 - 1


def test_a_vm_in_a_shared_network_gets_the_tap_and_nothing_of_the_hosts_user() -> None:
    link = Link("ingt258", "52:54:00:00:01:02", "10.213.1.2", 24, "10.213.1.1")
    arguments = argv(replace(PLAN, link=link))
    assert values(arguments, "-netdev") == ["tap,id=net,ifname=ingt258,script=no,downscript=no"]
    assert "virtio-net-device,netdev=net,mac=52:54:00:00:01:02" in values(arguments, "-device")


def test_published_ports_are_forwarded_by_the_vmm_of_a_network_of_its_own() -> None:
    ports = (PublishedPort(8080, 80), PublishedPort(5353, 53, Protocol.UDP, "127.0.0.1"))
    arguments = argv(replace(PLAN, vm=replace(PLAN.vm, ports=ports)), vsock=True)
    assert values(arguments, "-netdev") == [
        "user,id=net,ipv4=on,ipv6=off,hostfwd=tcp::8080-:80,hostfwd=udp:127.0.0.1:5353-:53"
    ]


def test_a_guest_has_ipv6_where_names_are_asked_for_by_that_alone() -> None:
    arguments = command.launch("qemu", PLAN, control_fd=5, ready_fd=6, tsc_khz=2_000_000, vsock=True, ipv6=True)
    assert values(arguments, "-netdev") == ["user,id=net,ipv4=on,ipv6=on"]

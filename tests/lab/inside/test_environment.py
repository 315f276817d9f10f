"""The lab is the host that it says it is."""

import os
import pwd
import stat
from pathlib import Path

import pytest

from lab.inside.commands import lab_run


def test_systemd_is_pid_1_and_every_unit_came_up() -> None:
    assert Path("/proc/1/comm").read_text() == "systemd\n"
    assert lab_run("systemctl", "is-system-running", "--wait") == "running\n", lab_run("systemctl", "--failed")


@pytest.mark.parametrize(
    ("device", "mode", "group"),
    [("/dev/kvm", 0o660, "kvm"), ("/dev/vhost-vsock", 0o660, "kvm"), ("/dev/net/tun", 0o666, "root")],
)
def test_devices_have_the_modes_that_udev_gives_them(device: str, mode: int, group: str) -> None:
    path = Path(device)
    assert (stat.S_IMODE(path.stat().st_mode), path.group()) == (mode, group)


def test_a_device_mapper_snapshot_keeps_its_origin(tmp_path: Path) -> None:
    origin, changes = tmp_path / "origin", tmp_path / "changes"
    origin.write_bytes(b"o" * (4 << 20))
    changes.touch()
    os.truncate(changes, 4 << 20)
    loops = [lab_run("losetup", "--find", "--show", str(path)).strip() for path in (origin, changes)]
    try:
        lab_run("dmsetup", "create", "lab-test", "--table", f"0 8192 snapshot {loops[0]} {loops[1]} N 8")
        try:
            device = Path("/dev/mapper/lab-test")
            with device.open("r+b") as file:
                file.write(b"changed")
                os.fsync(file.fileno())
            assert device.read_bytes()[:10] == b"changedooo"
            assert origin.read_bytes() == b"o" * (4 << 20)
        finally:
            lab_run("dmsetup", "remove", "lab-test")
    finally:
        lab_run("losetup", "--detach", *loops)


def test_a_tap_can_be_given_to_a_user() -> None:
    lab_run("ip", "tuntap", "add", "lab-test", "mode", "tap", "user", "dev")
    try:
        assert f"user {pwd.getpwnam('dev').pw_uid}" in lab_run("ip", "tuntap", "show", "dev", "lab-test")
    finally:
        lab_run("ip", "link", "delete", "lab-test")


def test_nftables_takes_rules() -> None:
    lab_run("nft", "table inet lab-test { set vms { type ipv4_addr; elements = { 10.1.2.3 }; }; }")
    try:
        assert "10.1.2.3" in lab_run("nft", "list", "table", "inet", "lab-test")
    finally:
        lab_run("nft", "delete", "table", "inet", "lab-test")

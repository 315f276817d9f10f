"""Disks by device-mapper in a system install: real guests, the real helper, and nothing left of either."""

import json
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.inside.commands import SECONDS, User, lab_run
from lab.inside.exactly import loop_files
from slow import slow

REPOSITORY = Path(__file__).parents[3]
STATE = Path("/var/lib/ingle")
NODES = Path("/dev/ingle")
DROP_IN = Path("/run/systemd/system/ingle.service.d/killing.conf")
SMALL = Path("/var/tmp/small.img")
MIB = 1 << 20

# What tests/integration/test_recovery.py counts: a create's steps.
ATTACH, ATTACHED, LAUNCHED, COMPLETE = 7, 8, 10, 14


def told(user: User, *argv: str, code: int = 0) -> Any:
    """What a command says as JSON."""
    return json.loads(user.run("ingle", *argv, "--json", code=code))


def said(user: User, *argv: str, code: int) -> str:
    """What a command says, on stderr as well."""
    return user.run("ingle", *argv, code=code, merged=True)


def guest(user: User, name: str, command: str, code: int = 0) -> str:
    """Run a shell command in a VM."""
    return user.run("ingle", "vm", "exec", name, "--", "sh", "-c", command, code=code).strip()


def until(condition: Callable[[], bool]) -> None:
    """Return when it holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def mapped() -> set[str]:
    return {line.split()[0] for line in lab_run("dmsetup", "ls").splitlines() if line.startswith("ingle-")}


def loops() -> list[str]:
    """Files that are loop devices, but for the tests' own."""
    lab_run("udevadm", "settle")
    return sorted(name for name in (Path(path).name for path in loop_files()) if name != SMALL.name)


def nodes() -> set[str]:
    return {node.name for node in NODES.iterdir()}


def attached(*ids: str) -> None:
    """Assert that exactly these VMs of one image have a device, and everything of it once."""
    assert mapped() == {f"ingle-{vm}{suffix}" for vm in ids for suffix in ("", "-base")}
    assert loops() == [*["disk.cow"] * len(ids), *["rootfs.ext4"] * bool(ids)]
    assert nodes() == set(ids)


@contextmanager
def vm(user: User, name: str, *options: str) -> Iterator[str]:
    """A VM; its id. Nothing is left of it."""
    user.run("ingle", "vm", "create", "--name", name, "--network", "user", *options)
    try:
        yield told(user, "vm", "show", name)["id"]
    finally:
        user.run("ingle", "vm", "delete", "--force", name)


@pytest.fixture(autouse=True)
def _nothing_is_left(member: User) -> Iterator[None]:
    yield
    attached()


def test_a_system_takes_them_by_itself_and_its_server_sees_no_other_block_device(member: User) -> None:
    pid = lab_run("systemctl", "show", "--value", "--property", "MainPID", "ingle.service").strip()
    with vm(member, "one") as one:  # made after the server, and its /dev, began
        shown = told(member, "vm", "show", "one")
        assert (shown["disk_backend"], shown["running_acceleration"]) == ("dm-snapshot", "kvm")
        attached(one)
        changes = STATE / "vms" / one / "disk.cow"
        assert changes.stat().st_blocks * 512 < 64 * MIB < changes.stat().st_size
        assert (NODES / one).stat().st_mode & 0o777 == 0o600
        dev = Path(f"/proc/{pid}/root/dev")
        found = {path.relative_to(dev) for path in dev.rglob("*") if stat.S_ISBLK(path.lstat().st_mode)}
        assert found == {Path("ingle", one)}


def test_what_is_written_outlives_restarts_and_the_device_is_there_while_the_vm_runs(member: User) -> None:
    with vm(member, "one") as one:
        guest(member, "one", "head -c 8M /dev/urandom >/root/data && sha256sum /root/data >/root/sum")
        member.run("ingle", "vm", "restart", "one")
        guest(member, "one", "sha256sum -c /root/sum")
        attached(one)
        member.run("ingle", "vm", "stop", "one")
        attached()
        member.run("ingle", "vm", "start", "one")
        guest(member, "one", "sha256sum -c /root/sum")
        member.run("ingle", "vm", "kill", "one")
        attached()


@slow
def test_a_disk_grows_and_keeps_what_is_on_it(member: User) -> None:
    with vm(member, "one", "--disk-size", "1G") as one:
        guest(member, "one", "echo kept >/root/data; sync")
        assert guest(member, "one", "cat /sys/block/vda/size") == str((1 << 30) // 512)
        assert "stop" in said(member, "vm", "update", "one", "--disk-size", "2G", code=1)
        member.run("ingle", "vm", "stop", "one")
        member.run("ingle", "vm", "update", "one", "--disk-size", "2G")
        member.run("ingle", "vm", "start", "one")
        assert guest(member, "one", "cat /sys/block/vda/size /root/data").split() == [str((2 << 30) // 512), "kept"]
        assert int(guest(member, "one", "df --output=size -B1 / | tail -1")) > 1.8e9
        attached(one)


@slow
def test_vms_of_one_image_share_its_device_and_nothing_of_their_own(member: User) -> None:
    with vm(member, "one") as one:
        with vm(member, "two") as two:
            attached(one, two)
            guest(member, "one", "echo one >/root/data; sync")
            guest(member, "two", "test ! -e /root/data && echo two >/root/data; sync")
            member.run("ingle", "vm", "restart", "one")
            assert guest(member, "one", "cat /root/data") == "one"
            assert guest(member, "two", "cat /root/data") == "two"
        attached(one)


@slow
def test_a_guest_that_reboots_has_one_device_afterwards(member: User) -> None:
    with vm(member, "one") as one:
        before = told(member, "vm", "show", "one")["boot_id"]
        member.run("ingle", "vm", "exec", "-d", "one", "--", "sh", "-c", "echo b >/proc/sysrq-trigger")
        until(lambda: told(member, "vm", "show", "one").get("boot_id") not in {before, None, ""})
        attached(one)


@pytest.fixture
def small(member: User) -> Iterator[Path]:
    """256 MiB for what VMs change, in place of the host's whole disk."""
    place = STATE / "vms"
    with SMALL.open("wb") as file:
        os.truncate(file.fileno(), 256 * MIB)
    lab_run("mkfs.ext4", "-q", "-m", "0", str(SMALL))
    lab_run("mount", "-o", "loop", str(SMALL), str(place))
    try:
        shutil.chown(place, "ingle", "ingle")
        place.chmod(0o700)
        yield place
    finally:
        lab_run("umount", str(place))
        SMALL.unlink()


@slow
def test_a_disk_that_the_host_has_no_room_for_is_told_before_and_after_it_is_lost(member: User, small: Path) -> None:
    with vm(member, "one", "--disk-size", "2G"):
        changes = told(member, "vm", "show", "one")["disk_changes"]
        assert changes["overflowed"] is False
        assert 0 < changes["used_bytes"] < changes["capacity_bytes"]
        # Told before: the whole file system is less than may come, and less than a tenth of it is left.
        guest(member, "one", "head -c 120M /dev/urandom >/root/some; sync")
        health = told(member, "vm", "health", "one")
        assert "will be lost when the host's is full" in health["problem"]
        assert 0 < health["disk_changes"]["room_bytes"] < 200 * MIB
        assert "room for" in member.run("ingle", "vm", "show", "one")
        assert ", room " in member.run("ingle", "vm", "stats", "one")
        # And after.
        # Without waiting for it: a guest whose disk is lost may hang.
        more = ("sh", "-c", "head -c 300M /dev/urandom >/root/more; sync")
        member.run("ingle", "vm", "exec", "-d", "one", "--", *more)
        until(lambda: '"overflowed": true' in member.run("ingle", "vm", "health", "--json", "one", code=None))
        health = told(member, "vm", "health", "one", code=0 if told(member, "vm", "show", "one")["activity"] else 1)
        assert health["disk_changes"]["overflowed"] is True
        assert "its disk is lost" in health["problem"]
        member.run("ingle", "vm", "stop", "--timeout", "1s", "one")
        refusal = said(member, "vm", "start", "one", code=1)
        assert "the disk of VM 'one' is lost" in refusal
        assert "ingle vm delete one" in refusal
        assert told(member, "vm", "show", "one")["state"] == "stopped"
        attached()


@contextmanager
def killing_server(before: int) -> Iterator[None]:
    """A server that kills itself before a step; another one afterwards."""
    script = Path("/run/killing_server.py")
    shutil.copy(REPOSITORY / "tests/integration/killing_server.py", script)
    script.chmod(0o644)
    DROP_IN.parent.mkdir(exist_ok=True)
    DROP_IN.write_text(
        f"[Service]\nEnvironment=KILL_BEFORE={before}\nRestart=no\n"
        f"ExecStart=\nExecStart=/opt/ingle/bin/python {script} --system\n"
    )
    lab_run("systemctl", "daemon-reload")
    lab_run("systemctl", "restart", "ingle.service")
    try:
        yield
    finally:
        DROP_IN.unlink()
        DROP_IN.parent.rmdir()
        lab_run("systemctl", "daemon-reload")
        lab_run("systemctl", "reset-failed", "ingle.service")
        lab_run("systemctl", "restart", "ingle.service")
        script.unlink()


@slow
@pytest.mark.parametrize("before", [ATTACH, ATTACHED, LAUNCHED])
def test_a_server_killed_in_a_create_leaves_nothing(member: User, before: int) -> None:
    with killing_server(before):
        member.run("ingle", "vm", "create", "--name", "doomed", "--network", "user", code=1)
        if before == ATTACHED:
            assert len(mapped()) == 2
    assert told(member, "vm", "list") == []
    attached()


@slow
def test_a_server_killed_after_a_create_finds_the_vm_and_its_disk(member: User) -> None:
    with killing_server(COMPLETE):
        member.run("ingle", "vm", "create", "--name", "one", "--network", "user", code=1)
    try:
        attached(told(member, "vm", "show", "one")["id"])
        guest(member, "one", "echo works >/root/data; sync; cat /root/data")
    finally:
        member.run("ingle", "vm", "delete", "--force", "one")


@slow
def test_a_server_killed_in_a_start_or_a_delete_leaves_it_stopped_or_deleted(member: User) -> None:
    member.run("ingle", "vm", "create", "--name", "kept", "--network", "user")
    guest(member, "kept", "echo kept >/root/data; sync")
    member.run("ingle", "vm", "stop", "kept")
    with killing_server(ATTACHED - 3):  # a start begins with the fourth step of a create
        member.run("ingle", "vm", "start", "kept", code=1)
        assert len(mapped()) == 2
    assert told(member, "vm", "show", "kept")["state"] == "stopped"
    attached()
    member.run("ingle", "vm", "start", "kept")
    assert guest(member, "kept", "cat /root/data") == "kept"
    with killing_server(0):
        member.run("ingle", "vm", "delete", "--force", "kept", code=1)
    assert told(member, "vm", "list") == []


@slow
def test_a_restart_of_the_services_is_not_felt(member: User) -> None:
    with vm(member, "one") as one:
        guest(member, "one", "echo before >/root/data; sync")
        boot = guest(member, "one", "cat /proc/sys/kernel/random/boot_id")
        lab_run("ingle", "system", "restart")
        lab_run("systemctl", "kill", "--signal=KILL", "ingle-helper-dm.service")
        attached(one)
        guest(member, "one", "echo 3 >/proc/sys/vm/drop_caches; test $(cat /root/data) = before")
        guest(member, "one", "echo after >/root/data; sync")
        assert guest(member, "one", "cat /proc/sys/kernel/random/boot_id") == boot
        until(lambda: member.run("ingle", "vm", "restart", "one", code=None).strip() == "one")
        assert guest(member, "one", "cat /root/data") == "after"


@slow
def test_devices_that_are_gone_as_after_a_reboot_are_made_again_by_a_start(member: User) -> None:
    with vm(member, "one") as one:
        guest(member, "one", "echo kept >/root/data; sync")
        pid = told(member, "vm", "show", "one")["pid"]
        lab_run("systemctl", "stop", "ingle.service")
        lab_run("systemctl", "stop", "ingle-helper-dm.service")
        os.kill(pid, signal.SIGKILL)
        for name in (f"ingle-{one}", f"ingle-{one}-base"):
            lab_run("dmsetup", "remove", "--retry", name)
        shutil.rmtree("/run/ingle-helper-dm")
        for node in NODES.iterdir():
            node.unlink()
        lab_run("systemctl", "start", "ingle-helper-dm.service", "ingle.service")
        assert told(member, "vm", "show", "one")["state"] == "error"
        member.run("ingle", "vm", "start", "one")
        assert guest(member, "one", "cat /root/data") == "kept"
        attached(one)


def test_without_the_helper_another_is_taken_and_this_one_refused(member: User) -> None:
    lab_run("systemctl", "stop", "ingle-helper-dm.service")
    try:
        refusal = said(member, "vm", "create", "--disk-backend", "dm-snapshot", code=1)
        assert "the root helper does not" in refusal
        assert "sudo systemctl restart ingle-helper-dm" in refusal
        assert told(member, "vm", "list") == []
        with vm(member, "one", "--no-start"):
            assert told(member, "vm", "show", "one")["disk_backend"] == "qcow2"
    finally:
        lab_run("systemctl", "start", "ingle-helper-dm.service")


@slow
def test_an_ordinary_users_server_refuses_it_with_what_to_do(dev: User) -> None:
    refusal = said(dev, "vm", "create", "--disk-backend", "dm-snapshot", code=1)
    assert "dm-snapshot: disks as device-mapper snapshots take the root helper of a system install" in refusal
    assert "sudo ingle system install" in refusal
    assert told(dev, "vm", "list") == []

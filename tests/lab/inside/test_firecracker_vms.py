"""VMs in Firecracker as members of an install have them: network, disk, states, restarts."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.inside.commands import User, lab_run
from slow import slow

MACHINE = ("--engine", "firecracker")
LEAST_SECONDS = 6.8


def shown(user: User, name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(user.run("ingle", "vm", "show", name, "--json"))
    return told


def heard(user: User, name: str, *argv: str) -> str:
    return user.run("ingle", "vm", "exec", name, "--", *argv).strip()


@pytest.fixture(scope="module")
def vm(member: User) -> Iterator[str]:
    """A running VM, by the name of tiny."""
    member.run("ingle", "vm", "create", "--name", "tiny", *MACHINE)
    yield "tiny"
    member.run("ingle", "vm", "delete", "--force", "tiny")


def test_where_it_can_not_be_had_is_told_with_why(dev: User) -> None:
    told = dev.run("ingle", "vm", "create", *MACHINE, code=1, merged=True)
    assert "firecracker: no network" in told
    assert json.loads(dev.run("ingle", "vm", "list", "--json")) == []


@pytest.mark.parametrize(
    ("wish", "engine"),
    [(("--disk-backend", "dm-snapshot"), "firecracker"), (("--disk-backend", "qcow2"), "qemu")],
    ids=["what it can", "what it can't"],
)
def test_it_is_taken_where_it_can_run_what_is_wished_for(member: User, wish: tuple[str, ...], engine: str) -> None:
    member.run("ingle", "vm", "create", "--name", "any", "--engine", "auto", "--no-start", *wish)
    told = shown(member, "any")
    member.run("ingle", "vm", "delete", "any")
    assert (told["engine"], told["network"]) == (engine, "default")


def test_a_vm_has_a_raw_disk_a_tap_and_kvm(member: User, vm: str) -> None:
    told = shown(member, vm)
    assert (told["engine"], told["running_acceleration"], told["network"]) == ("firecracker", "kvm", "default")
    assert told["disk_backend"] in {"reflink", "dm-snapshot", "copy"}
    argv = Path(f"/proc/{told['pid']}/cmdline").read_bytes().decode().split("\0")
    assert argv[0].endswith("/firecracker")


def test_its_vmm_has_the_rights_of_the_server_and_gives_up_some_more(member: User, vm: str) -> None:
    status = Path(f"/proc/{shown(member, vm)['pid']}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [lab_run("id", "-u", "ingle").strip()] * 4
    assert {int(fields[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    server = lab_run("systemctl", "show", "--value", "--property", "MainPID", "ingle.service").strip()
    (filters,) = re.findall(r"Seccomp_filters:\t(\d+)", Path(f"/proc/{server}/status").read_text())
    assert int(fields["Seccomp_filters"]) > int(filters), "Firecracker has a filter of its own on top"


def test_vms_of_both_engines_are_in_one_network(member: User, vm: str) -> None:
    member.run("ingle", "vm", "create", "--name", "other", "--engine", "qemu")
    try:
        for one, another in ((vm, "other"), ("other", vm)):
            assert shown(member, another)["address"] in heard(member, one, "getent", "ahostsv4", f"{another}.vm")
            # Nobody listens there: a refusal is an answer of the other's kernel.
            ask = f"exec 3<>/dev/tcp/{shown(member, another)['address']}/9"
            told = member.run("ingle", "vm", "exec", one, "--", "bash", "-c", ask, code=1, merged=True)
            assert "refused" in told
    finally:
        member.run("ingle", "vm", "delete", "--force", "other")


@slow
def test_what_it_takes_in_a_second_is_limited_from_its_start_while_it_runs_and_when_it_wakes(member: User) -> None:
    """16 MiB at 2 MiB a second, of which the first second's are free."""

    def written() -> float:
        """Seconds, as the guest has them: it is awake by then, whatever that took."""
        dd = "dd if=/dev/zero of=/root/data bs=1M count=16 oflag=direct 2>&1"
        (seconds,) = re.findall(r" copied, ([\d.]+) s,", heard(member, "slow", "sh", "-c", dd))
        return float(seconds)

    member.run("ingle", "vm", "create", "--name", "slow", *MACHINE, "--disk-bandwidth", "2M", "--net-bandwidth", "1M")
    try:
        assert (limited := written()) >= LEAST_SECONDS
        assert "1 mbytes/second" in lab_run("nft", "list", "limits")
        member.run("ingle", "vm", "set", "slow", "--disk-bandwidth", "none", "--net-bandwidth", "none")
        assert written() < limited
        assert "mbytes/second" not in lab_run("nft", "list", "limits")
        member.run("ingle", "vm", "hibernate", "slow")
        member.run("ingle", "vm", "set", "slow", "--disk-bandwidth", "2M", "--net-bandwidth", "1M")
        assert written() >= LEAST_SECONDS
        assert "1 mbytes/second" in lab_run("nft", "list", "limits")
        member.run("ingle", "vm", "hibernate", "slow")
        member.run("ingle", "vm", "set", "slow", "--disk-bandwidth", "none")
        assert written() < limited, "what it was saved with does not hold"
    finally:
        member.run("ingle", "vm", "delete", "--force", "slow")
    assert "mbytes/second" not in lab_run("nft", "list", "limits")


def test_a_killed_servers_vm_is_taken_over_by_the_next(member: User, vm: str) -> None:
    before = shown(member, vm)
    killed = int(lab_run("systemctl", "show", "--value", "--property", "MainPID", "ingle.service"))
    os.kill(killed, signal.SIGKILL)
    another = f"systemctl show --value --property MainPID ingle.service | grep -qvwE '0|{killed}'"
    lab_run("sh", "-c", f"until {another} && systemctl is-active --quiet ingle.service; do sleep 0.5; done")
    after = shown(member, vm)
    assert (after["boot_id"], after["pid"], after["state"]) == (before["boot_id"], before["pid"], "running")
    assert heard(member, vm, "cat", "/proc/sys/kernel/random/boot_id") == before["boot_id"]


def test_who_pauses_it_and_then_uses_it_has_it_go_on(member: User, vm: str) -> None:
    boot = shown(member, vm)["boot_id"]
    member.run("ingle", "vm", "pause", vm)
    assert shown(member, vm)["state"] == "paused"
    assert heard(member, vm, "cat", "/proc/sys/kernel/random/boot_id") == boot


def test_what_it_wrote_is_there_after_it_was_stopped_and_started(member: User, vm: str) -> None:
    heard(member, vm, "sh", "-c", "echo kept >/root/note")
    member.run("ingle", "vm", "restart", vm)
    assert heard(member, vm, "cat", "/root/note") == "kept"


def test_a_guest_that_panics_is_in_error_with_what_its_kernel_said(member: User, vm: str) -> None:
    crash = "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 100"
    member.run("ingle", "vm", "exec", vm, "--", "sh", "-c", crash, code=None)
    member.run("ingle", "vm", "wait", vm, "--for", "error")
    assert "sysrq triggered crash" in shown(member, vm)["error"]
    member.run("ingle", "vm", "start", vm)
    assert heard(member, vm, "echo", "back") == "back"

"""Ingle as an ordinary user has it, on a host whose KVM works."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.inside.commands import User


@pytest.fixture(scope="module")
def vm(dev: User) -> Iterator[str]:
    """The name of a running VM."""
    dev.run("ingle", "vm", "create", "--name", "web")
    yield "web"
    dev.run("ingle", "vm", "delete", "--force", "web")


def shown(user: User, *command: str) -> dict[str, Any]:
    """What a command says with --json."""
    told: dict[str, Any] = json.loads(user.run("ingle", *command, "--json"))
    return told


def test_a_command_in_a_vm_of_its_own(dev: User) -> None:
    dev.run("ingle", "vm", "run", "--rm", "--", "true")
    assert json.loads(dev.run("ingle", "vm", "list", "--json")) == []


def test_the_exit_code_is_the_commands(dev: User, vm: str) -> None:
    dev.run("ingle", "vm", "exec", vm, "--", "sh", "-c", "exit 42", code=42)


def test_input_and_output_go_through_unchanged(dev: User, vm: str) -> None:
    text = "".join(f"line {number}\n" for number in range(20_000))
    assert dev.run("ingle", "vm", "exec", vm, "--", "cat", stdin=text) == text


def test_kvm_is_chosen_where_it_works_and_vsock_not_since_anybody_could_call_the_agent_there(
    dev: User, vm: str
) -> None:
    vmm = shown(dev, "vm", "show", vm)
    assert vmm["running_acceleration"] == "kvm"
    arguments = Path(f"/proc/{vmm['pid']}/cmdline").read_bytes().decode().split("\0")
    assert arguments[arguments.index("-accel") + 1] == "kvm"
    assert "virtserialport,chardev=agent,name=ingle.agent" in arguments
    assert not any("vsock" in argument for argument in arguments)
    assert not any("hostfwd" in argument for argument in arguments)


def test_the_vmm_has_no_privileges(dev: User, vm: str) -> None:
    status = Path(f"/proc/{shown(dev, 'vm', 'show', vm)['pid']}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert set(fields["Uid"].split()) == {str(Path("/home/dev").stat().st_uid)}
    assert {fields[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert fields["Seccomp"] == "2"


def test_a_killed_servers_vm_is_taken_over_by_the_next(dev: User, vm: str) -> None:
    before = shown(dev, "vm", "show", vm)
    os.kill(shown(dev, "server", "status")["pid"], signal.SIGKILL)
    after = shown(dev, "vm", "show", vm)
    assert (after["boot_id"], after["pid"], after["state"]) == (before["boot_id"], before["pid"], "running")
    assert (
        dev.run("ingle", "vm", "exec", vm, "--", "cat", "/proc/sys/kernel/random/boot_id").strip() == after["boot_id"]
    )


def test_a_guest_sleeps_and_wakes_and_is_forked(dev: User, vm: str) -> None:
    dev.run("ingle", "vm", "exec", vm, "--", "sh", "-c", "echo memory >/dev/shm/kept; echo disk >/root/kept")
    dev.run("ingle", "vm", "hibernate", vm)
    assert shown(dev, "vm", "show", vm)["state"] == "hibernated"
    kept = ("cat", "/dev/shm/kept", "/root/kept")
    assert dev.run("ingle", "vm", "exec", vm, "--", *kept) == "memory\ndisk\n"
    dev.run("ingle", "vm", "fork", vm, "--name", "twin")
    try:
        assert dev.run("ingle", "vm", "exec", "twin", "--", *kept) == "memory\ndisk\n"
        assert dev.run("ingle", "vm", "exec", "twin", "--", "hostname") == "twin\n"
    finally:
        dev.run("ingle", "vm", "delete", "--force", "twin")


def test_a_vm_begins_with_the_memory_of_a_guest_that_has_booted(dev: User) -> None:
    dev.run("ingle", "vm", "create", "--boot", "warm", "--name", "quick")
    try:
        assert shown(dev, "vm", "show", "quick")["boot_mode"] == "warm"
        assert dev.run("ingle", "vm", "exec", "quick", "--", "hostname") == "quick\n"
        now = int(dev.run("ingle", "vm", "exec", "quick", "--", "date", "+%s"))
        assert abs(now - time.time()) < 60  # of which the lab may take many for the command itself
    finally:
        dev.run("ingle", "vm", "delete", "--force", "quick")

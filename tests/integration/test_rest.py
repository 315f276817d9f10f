"""Real guests that stand still, and go on."""

import asyncio
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from harness import Server
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import ExecSpec, Exited, HookResult
from ingle.api_server.ports.guest import GuestChannel
from ingle.v1 import vm_pb2

from .agent_of import ask_agent

HOOKS = "/etc/ingle/hooks"


@pytest.fixture(scope="module")
def guest(server: Server) -> Iterator[vm_pb2.Vm]:
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    yield vm
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def said(server: Server, vm: vm_pb2.Vm, script: str) -> str:
    code, out, err = server.run(vm.id, "bash", "-ec", script)
    assert code == 0, err
    return out.decode().strip()


def hook(server: Server, vm: vm_pb2.Vm, name: str, script: str) -> None:
    said(server, vm, f"mkdir -p {HOOKS}; rm -f {HOOKS}/*")
    program = f"#!/bin/sh\n{script}\n".encode()
    server.run(vm.id, "sh", "-c", f"cat > {HOOKS}/{name}; chmod +x {HOOKS}/{name}", stdin=program)


async def busy(agent: GuestChannel) -> float:
    """Seconds of processor time within one."""
    before = await agent.stats()
    await asyncio.sleep(1)
    after = await agent.stats()
    return after.cpu_total_seconds - after.cpu_idle_seconds - (before.cpu_total_seconds - before.cpu_idle_seconds)


async def nap(agent: GuestChannel) -> float:
    """How busy a guest is that rests."""
    assert await agent.rest() is None
    try:
        return await busy(agent)
    finally:
        assert await agent.thaw() is None


def test_what_runs_stands_still_and_goes_on(server: Server, guest: vm_pb2.Vm) -> None:
    counts = "until test -e /root/enough; do cut -d\\  -f1 /proc/uptime; sleep 0.01; done"
    # One that callers have started, one that root has put where nothing can be frozen, and one beside the agent.
    for place in ("ingle/commands", ".", "ingle/agent"):
        moves = f"echo $BASHPID >/sys/fs/cgroup/{place}/cgroup.procs"
        said(server, guest, f"({moves}; {counts}) >>/root/counted-$(basename {place}) 2>/dev/null &")
    assert ask_agent(server, guest, nap) < 0.3
    said(server, guest, "sleep 0.5; touch /root/enough")
    for log in ("commands", ".", "agent"):
        counted = [float(line) for line in said(server, guest, f"cat /root/counted-{log}").split("\n")]
        assert max(after - before for before, after in pairwise(counted)) > 1, log


def test_who_multiplies_is_caught_too(server: Server, guest: vm_pb2.Vm) -> None:
    said(server, guest, "for i in 1 2 3; do (while :; do (setsid sleep 0.05 &); done) >/dev/null 2>&1 & done")
    try:
        assert ask_agent(server, guest, busy) > 0.5
        for _ in range(3):
            assert ask_agent(server, guest, nap) < 0.3
        assert ask_agent(server, guest, busy) > 0.5
    finally:
        server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=guest.id))


def test_hooks_run_and_what_they_say_is_told(server: Server, guest: vm_pb2.Vm) -> None:
    note = 'cat /sys/fs/cgroup/ingle/commands/cgroup.freeze; echo "$0 $HOME"; (sleep 0.2; echo later) & exit 3'

    async def told(agent: GuestChannel) -> tuple[HookResult | None, ...]:
        return await agent.rest(), await agent.rest(), await agent.thaw(forked=True), await agent.thaw(forked=True)

    hook(server, guest, "suspend", note)
    said(server, guest, f"cd {HOOKS}; cp suspend fork; cp suspend resume; chmod -x resume")
    suspend = HookResult(3, output=f"0 {HOOKS}/suspend /root")
    fork = HookResult(3, output=f"1 {HOOKS}/fork /root")
    assert ask_agent(server, guest, told) == (suspend, None, fork, None)

    async def woken(agent: GuestChannel) -> HookResult | None:
        await agent.rest()
        return await agent.thaw()

    assert ask_agent(server, guest, woken) is None  # it can't be executed


def test_a_hook_that_hangs_or_never_stops_talking_is_bounded(server: Server, guest: vm_pb2.Vm) -> None:
    hook(server, guest, "suspend", "trap '' TERM; while :; do echo again and again; done")

    async def told(agent: GuestChannel) -> HookResult | None:
        hook = await agent.rest()
        await agent.thaw()
        return hook

    begun = time.monotonic()
    hung = ask_agent(server, guest, told)
    assert time.monotonic() - begun < 60
    assert hung is not None
    assert (hung.exit_code, hung.timed_out) == (137, True)
    assert "again and again" in hung.output
    assert len(hung.output) <= 500


def test_what_waits_for_a_device_keeps_nobody_waiting(server: Server, guest: vm_pb2.Vm) -> None:
    """The guest goes on, and whoever asked is told what it was."""
    said(server, guest, f"rm -f {HOOKS}/*; sync; fsfreeze -f /; (echo held >/root/held) >/dev/null 2>&1 &")
    try:

        async def tried(agent: GuestChannel) -> tuple[GuestError, object]:
            with pytest.raises(GuestError) as caught:
                await agent.rest()
            async with agent.exec(ExecSpec(("true",))) as command:
                events = [event async for event in command.events()]
            return caught.value, events[-1]

        error, ended = ask_agent(server, guest, tried)
        assert (error.reason, ended) == (Reason.GUEST_RESTLESS, Exited(0))
        assert "(bash), which waits for a device" in error.message
    finally:
        server.run(guest.id, "fsfreeze", "-u", "/")
    assert ask_agent(server, guest, nap) < 0.3


def test_a_guest_that_rests_can_be_stopped(server: Server, guest: vm_pb2.Vm) -> None:
    async def rest(agent: GuestChannel) -> None:
        await agent.rest()

    ask_agent(server, guest, rest)
    stopped = server.vms.StopVm(vm_pb2.StopVmRequest(vm=guest.id)).vm
    assert (stopped.state, stopped.error) == (vm_pb2.VM_STATE_STOPPED, "")


@pytest.mark.parametrize(
    "put",
    [
        "mount -t tmpfs none $groups/commands; mkfifo $groups/commands/cgroup.freeze $groups/commands/cgroup.procs",
        "mkfifo /run/fifo; mount --bind /run/fifo $groups/commands/cgroup.freeze",
        "mount --bind /dev/zero $groups/commands/cgroup.events",
    ],
)
def test_what_root_puts_over_its_control_groups_keeps_nobody_waiting(server: Server, put: str) -> None:
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    try:
        said(server, vm, f"groups=/sys/fs/cgroup/ingle; {put}")
        assert server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id)).vm.state == vm_pb2.VM_STATE_HIBERNATED
        assert said(server, vm, "echo awake") == "awake"
    finally:
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))

"""Guests whose PID 1 is the image's own init, with the agent beside it."""

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from harness import Server, refused
from ingle.api_server.adapters.vmm.boot import machine_id
from ingle.api_server.model.guest import GuestIdentity
from ingle.api_server.model.guest_files import WriteSpec
from ingle.api_server.ports.guest import GuestChannel
from ingle.v1 import guest_pb2, image_pb2, snapshot_pb2, vm_pb2
from uploading import image_upload

from .agent_of import ask_agent, set_token, token_of
from .small_images import busybox_tree, registered, with_init

# The kernel's last words. An init that is asked says goodbye to every service first, then has the kernel say this.
RESTARTED = b"reboot: Restarting system"

_MARKER = """[Unit]
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo begun >> /root/marker'
ExecStop=/bin/sh -c 'echo ended >> /root/marker'
[Install]
WantedBy=multi-user.target
"""


@contextmanager
def created(server: Server, image: str) -> Iterator[vm_pb2.Vm]:
    spec = vm_pb2.VmSpec(image=image, init=vm_pb2.INIT_IMAGE)
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm
    try:
        yield vm
    finally:
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


@pytest.fixture(scope="module")
def systemd_image(server: Server, pytestconfig: pytest.Config) -> str:
    """Debian with systemd, by the name of the catalog. It takes half a minute, unless it was kept."""
    name = "debian:bookworm-systemd"
    kept = Path(pytestconfig.getoption("prepared"), "bookworm-systemd.ext4")
    if kept.exists():
        server.images.RegisterImage(image_upload(name, kept))
        return name
    image = server.images.PullImage(image_pb2.PullImageRequest(name=name)).image
    shutil.copyfile(server.state / "images" / image.id / "rootfs.ext4", kept)
    return name


@pytest.fixture(scope="module")
def systemd(server: Server, systemd_image: str) -> Iterator[vm_pb2.Vm]:
    """A guest whose systemd has started all it wants to."""
    with created(server, systemd_image) as vm:
        until_up(server, vm)
        yield vm


def said(server: Server, vm: vm_pb2.Vm, script: str) -> str:
    code, out, err = server.run(vm.id, "sh", "-ec", script)
    assert code == 0, err
    return out.decode().strip()


def until_up(server: Server, vm: vm_pb2.Vm) -> None:
    deadline = time.monotonic() + 180
    while (state := server.run(vm.id, "systemctl", "is-system-running")[1].decode().strip()) != "running":
        assert state in {"initializing", "starting"}, said(server, vm, "systemctl --failed --no-pager")
        assert time.monotonic() < deadline, said(server, vm, "systemctl list-jobs --no-pager")
        time.sleep(0.5)


def until(server: Server, vm: vm_pb2.Vm, condition: Callable[[vm_pb2.Vm], bool]) -> vm_pb2.Vm:
    """The VM, once it is so."""
    deadline = time.monotonic() + 120
    while not condition(now := server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return now


def until_answers(server: Server, vm: vm_pb2.Vm) -> None:
    deadline = time.monotonic() + 60
    while not server.vms.GetVmHealth(vm_pb2.GetVmHealthRequest(vm=vm.id)).agent_answers:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def console(server: Server, vm: vm_pb2.Vm) -> bytes:
    return b"".join(response.data for response in server.vms.StreamVmLogs(vm_pb2.StreamVmLogsRequest(vm=vm.id)))


def stop(server: Server, vm: vm_pb2.Vm) -> None:
    request = vm_pb2.StopVmRequest(vm=vm.id, timeout=Duration(seconds=80))
    stopped = server.vms.StopVm(request).vm
    assert (stopped.state, stopped.error) == (vm_pb2.VM_STATE_STOPPED, "")


def test_systemd_is_pid_1_and_the_agent_serves_beside_it(server: Server, systemd: vm_pb2.Vm) -> None:
    assert systemd.init == vm_pb2.INIT_IMAGE
    assert said(server, systemd, "cat /proc/1/comm; hostname; grep ^0: /proc/self/cgroup").split("\n") == [
        *("systemd", systemd.name, "0::/ingle/commands")
    ]
    agent, number = said(server, systemd, "tr '\\0' ' ' < /proc/$PPID/cmdline; echo; echo $PPID").split("\n")
    assert agent.strip() == "@ingle-agent --beside-init"
    assert number != "1"
    shown = said(server, systemd, "ip -br addr show eth0; ip route")
    assert "10.0.2.15/24" in shown
    assert "default via 10.0.2.2" in shown
    assert server.run(systemd.id, "sh", "-c", "kill -9 $$")[0] == 137
    assert server.run(systemd.id, "sh", "-c", "exit 42")[0] == 42
    assert server.vms.GetVmStats(vm_pb2.GetVmStatsRequest(vm=systemd.id)).guest.processes > 2


def comes_back(server: Server, vm: vm_pb2.Vm) -> None:
    """All processes of the guest but init are killed, the agent among them, and there is another one."""
    before = said(server, vm, "echo $PPID")
    for _ in range(2):  # the second time it is one that has come back
        with suppress(grpc.RpcError):
            server.run(vm.id, "sh", "-c", "kill -9 -1")
        until_answers(server, vm)
        script = "echo $PPID; cat /proc/$PPID/oom_score_adj; tr '\\0' ' ' < /proc/$PPID/cmdline"
        now = said(server, vm, script).split("\n")
        assert now[0] != before
        assert now[1:] == ["-1000", "@ingle-agent --beside-init"]
        data = os.urandom(3 << 20)  # enough for the agent to look for garbage: it closed what was not its own
        assert server.run(vm.id, "cat", stdin=data) == (0, data, b"")
        before = now[0]


def test_an_agent_that_is_killed_beside_systemd_comes_back(server: Server, systemd: vm_pb2.Vm) -> None:
    comes_back(server, systemd)
    assert said(server, systemd, "grep ^0: /proc/self/cgroup") == "0::/ingle/commands"
    until_up(server, systemd)


def test_all_of_a_systemd_stands_still_but_the_agent_and_goes_on(server: Server, systemd: vm_pb2.Vm) -> None:
    counts = "while :; do cat /proc/uptime >> /run/counted; sleep 0.01; done"
    said(server, systemd, f"systemd-run --quiet --unit counter sh -c '{counts}'")

    async def nap(agent: GuestChannel) -> float:
        assert await agent.rest() is None
        before = await agent.stats()
        await asyncio.sleep(1)
        after = await agent.stats()
        busy = after.cpu_total_seconds - after.cpu_idle_seconds - (before.cpu_total_seconds - before.cpu_idle_seconds)
        await agent.thaw()
        return busy

    assert ask_agent(server, systemd, nap) < 0.5
    said(server, systemd, "sleep 1; systemctl stop counter")
    until_up(server, systemd)
    counted = [float(line.split()[0]) for line in said(server, systemd, "cat /run/counted").split("\n")]
    longest = max(after - before for before, after in pairwise(counted))
    assert longest > 1
    assert said(server, systemd, "cat /sys/fs/cgroup/*/cgroup.freeze | sort -u") == "0"


def test_an_agent_that_is_killed_is_whom_it_was_told_to_be(server: Server, systemd: vm_pb2.Vm) -> None:
    """By what the server has told it last, not by its boot configuration."""
    token = os.urandom(32)

    async def become(agent: GuestChannel) -> None:
        await agent.take_identity(GuestIdentity(token=token, env={"WHO": "another"}))

    former = token_of(server, systemd)
    ask_agent(server, systemd, become)
    set_token(server, systemd, token)
    comes_back(server, systemd)
    assert said(server, systemd, "echo $WHO") == "another"

    async def be_again(agent: GuestChannel) -> None:
        await agent.take_identity(GuestIdentity(token=former, env={}))

    ask_agent(server, systemd, be_again)
    set_token(server, systemd, former)
    until_up(server, systemd)


def test_systemd_takes_the_machine_id_that_is_the_vms(server: Server, systemd: vm_pb2.Vm) -> None:
    wanted = machine_id(systemd.id)
    for before in ("uninitialized", "0123456789abcdef0123456789abcdef", ""):
        said(server, systemd, f"rm /etc/machine-id; echo {before} > /etc/machine-id; sync")
        server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=systemd.id, timeout=Duration(seconds=80)))
        until_up(server, systemd)
        assert said(server, systemd, "cat /etc/machine-id") == wanted
        logged = json.loads(said(server, systemd, "journalctl --no-pager -b -n 1 -o json"))
        assert logged["_MACHINE_ID"] == wanted
        first = said(server, systemd, "systemctl show --value -p ConditionResult systemd-firstboot")
        assert (first == "yes") == (before == "uninitialized")


def test_the_agent_outlives_a_systemd_that_starts_itself_anew(server: Server, systemd: vm_pb2.Vm) -> None:
    before = said(server, systemd, "echo $PPID")
    said(server, systemd, "systemctl daemon-reexec")
    assert said(server, systemd, "echo $PPID; systemctl is-system-running") == f"{before}\nrunning"


def test_the_agent_is_no_victim_when_memory_runs_out_but_its_commands_are(server: Server, systemd: vm_pb2.Vm) -> None:
    assert said(server, systemd, "cat /proc/$PPID/oom_score_adj; sleep 0.2; cat /proc/self/oom_score_adj") == "-1000\n0"


def test_a_stop_ends_services_in_order_though_a_shell_is_open(server: Server, systemd: vm_pb2.Vm) -> None:
    server.run(systemd.id, "sh", "-c", "cat > /etc/systemd/system/marker.service", stdin=_MARKER.encode())
    said(server, systemd, "systemctl enable --now --quiet marker")
    # bash on a terminal ignores SIGTERM, for which systemd would wait as long as it takes.
    program = guest_pb2.SessionProgram(argv=["bash", "-i"])
    server.guest.CreateSession(guest_pb2.CreateSessionRequest(vm=systemd.id, session_id="open", program=program))
    stop(server, systemd)
    assert RESTARTED in console(server, systemd)
    server.vms.StartVm(vm_pb2.StartVmRequest(vm=systemd.id))
    assert said(server, systemd, "head -n 2 /root/marker") == "begun\nended"


def test_a_guest_that_powers_itself_off_is_stopped(server: Server, systemd: vm_pb2.Vm) -> None:
    said(server, systemd, "systemctl --no-block poweroff")  # though it has hardly started
    vm = until(server, systemd, lambda now: now.state != vm_pb2.VM_STATE_RUNNING)
    assert (vm.state, vm.error) == (vm_pb2.VM_STATE_STOPPED, "")


async def place_of_init(agent: GuestChannel) -> str:
    """In which control group PID 1 is while the guest rests, as a hook says, and whether that is frozen."""
    hook = b"#!/bin/sh\ngrep ^0: /proc/1/cgroup; cat /sys/fs/cgroup/ingle/commands/cgroup.freeze\n"

    async def pieces() -> AsyncIterator[bytes]:
        yield hook

    await agent.files.make_directory("/etc/ingle/hooks", parents=True)
    await agent.files.write(WriteSpec("/etc/ingle/hooks/resume", mode=0o755), pieces())
    await agent.rest()
    told = await agent.thaw()
    assert told is not None
    return told.output


def test_an_init_that_is_not_systemd(server: Server, tmp_path: Path) -> None:
    tree = with_init(busybox_tree(tmp_path / "rootfs"))
    with registered(server, "busybox-init", tree) as image, created(server, image) as vm:
        assert said(server, vm, "readlink /proc/1/exe") == "/bin/busybox"
        assert ask_agent(server, vm, place_of_init) == "0::/ingle/commands 1"
        stop(server, vm)
        assert RESTARTED in console(server, vm)
        started = server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id)).vm
        assert said(server, vm, "head -n 2 /root/marker") == "begun\nended"
        comes_back(server, vm)
        said(server, vm, "reboot")
        until(server, vm, lambda now: now.state == vm_pb2.VM_STATE_RUNNING and now.boot_id != started.boot_id)
        said(server, vm, "poweroff")
        until(server, vm, lambda now: now.state == vm_pb2.VM_STATE_STOPPED)


def test_a_guest_with_an_init_of_its_own_sleeps_is_forked_and_put_back(server: Server, tmp_path: Path) -> None:
    tree = with_init(busybox_tree(tmp_path / "rootfs"))
    with registered(server, "busybox-forked", tree) as image, created(server, image) as vm:
        assert said(server, vm, "echo in memory >/run/mark; cat /etc/machine-id") == machine_id(vm.id)
        server.snapshots.CreateSnapshot(snapshot_pb2.CreateSnapshotRequest(vm=vm.name, name="init"))
        (fork,) = server.vms.ForkVm(vm_pb2.ForkVmRequest(snapshot="init", name="init-fork")).vms
        who = "cat /run/mark /etc/machine-id; hostname; head -n 1 /root/marker"
        assert said(server, fork, who) == f"in memory\n{machine_id(fork.id)}\ninit-fork\nbegun"
        server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.name))
        said(server, vm, "echo later >/run/mark")  # which wakes it
        server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm=vm.name, snapshot="init"))
        assert said(server, vm, who) == f"in memory\n{machine_id(vm.id)}\n{vm.name}\nbegun"
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=fork.id, force=True))
        server.snapshots.DeleteSnapshot(snapshot_pb2.DeleteSnapshotRequest(snapshot="init"))


def test_an_image_without_an_init_is_refused_and_works_without_the_wish(server: Server, tmp_path: Path) -> None:
    with registered(server, "no-init", busybox_tree(tmp_path / "rootfs")) as image:
        before = server.list()
        spec = vm_pb2.VmSpec(image=image, init=vm_pb2.INIT_IMAGE)
        error = refused(server.vms.CreateVm, vm_pb2.CreateVmRequest(spec=spec))
        assert error.reason == "INIT_NOT_FOUND"
        assert "/sbin/init" in error.message
        assert "--init" in error.remedy
        assert server.list() == before

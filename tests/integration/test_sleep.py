"""Real guests that stand still, in memory and on disk, and go on where they were."""

import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from free_ports import free_port
from harness import NewServer, Server, refused
from ingle.v1 import guest_pb2, vm_pb2
from slow import mostly_slow

PAUSED, HIBERNATED, RUNNING = vm_pb2.VM_STATE_PAUSED, vm_pb2.VM_STATE_HIBERNATED, vm_pb2.VM_STATE_RUNNING

SERVE = """
use IO::Socket::INET;
my $tcp = IO::Socket::INET->new(LocalPort => 80, Listen => 5, ReuseAddr => 1) or die;
exit if fork;
while (my $caller = $tcp->accept) { $caller->autoflush(1); while (my $line = <$caller>) { print $caller $line } }
"""
COUNTING = "n=0; while :; do n=$((n+1)); echo $n >/run/new; mv /run/new /run/count; sleep 0.05; done"


@pytest.fixture
def server(new_server: NewServer) -> Server:
    return new_server()


@pytest.fixture
def vm(server: Server) -> vm_pb2.Vm:
    """One with something in memory, something on disk, and something that goes on."""
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name="dozer", memory_bytes=256 << 20))).vm
    shell(server, vm, "echo in-memory >/run/marker; echo on-disk >/root/marker; mkdir -p /run/big /etc/ingle/hooks")
    shell(server, vm, "head -c 20000000 /dev/urandom >/run/big/data; md5sum /run/big/data >/root/sum")
    start = guest_pb2.ExecStart(vm=vm.id, argv=["sh", "-c", COUNTING], detach=True)
    assert next(server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))).HasField("started")
    shell(server, vm, "until test -e /run/count; do sleep 0.05; done")
    return vm


def shell(server: Server, vm: vm_pb2.Vm, script: str) -> str:
    code, out, err = server.run(vm.id, "sh", "-ec", script)
    assert code == 0, err
    return out.decode().strip()


def count(server: Server, vm: vm_pb2.Vm) -> int:
    return int(shell(server, vm, "cat /run/count"))


def goes_on(server: Server, vm: vm_pb2.Vm, before: int) -> None:
    """Assert that it is the guest that it was, and that its programs go on where they were."""
    assert shell(server, vm, "cat /run/marker /root/marker; md5sum -c /root/sum >/dev/null") == "in-memory\non-disk"
    now = count(server, vm)
    assert before <= now < before + 400, "it was not counted while it stood still"
    deadline = time.monotonic() + 30
    while count(server, vm) == now:
        assert time.monotonic() < deadline
    assert shell(server, vm, "cat /proc/sys/kernel/random/boot_id") == vm.boot_id
    assert shell(server, vm, "dmesg | grep -ciE 'ext4-fs error|i/o error' || true") == "0"


def clock_offset(server: Server, vm: vm_pb2.Vm) -> float:
    """By how much the guest's is ahead at most, seconds: nobody knows when in a round trip it was read."""
    before = time.time()
    there = float(shell(server, vm, "date +%s.%N"))
    after = time.time()
    return max(before - there, there - after, 0.0)


def test_three_cycles_of_hibernating_and_waking_lose_nothing(server: Server, vm: vm_pb2.Vm) -> None:
    seen = {shell(server, vm, "head -c 16 /dev/urandom | md5sum")}
    for cycle in range(3):
        before = count(server, vm)
        shell(server, vm, f"echo {cycle} >>/root/cycles")
        assert server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id)).vm.state == HIBERNATED
        assert not [line for line in server.vmm_processes().values() if vm.id in line]
        time.sleep(1.0)
        awake = server.vms.WakeVm(vm_pb2.WakeVmRequest(vm=vm.id)).vm
        assert (awake.state, awake.sleep_error, awake.boot_id) == (RUNNING, "", vm.boot_id)
        assert clock_offset(server, vm) < 0.05
        goes_on(server, vm, before)
        seen.add(shell(server, vm, "head -c 16 /dev/urandom | md5sum"))
    assert len(seen) == 4
    assert shell(server, vm, "cat /root/cycles") == "0\n1\n2"
    assert not (server.state / "vms" / vm.id / "memory").exists()


def test_a_memory_that_is_woken_from_twice_gives_other_random_numbers(
    server: Server, vm: vm_pb2.Vm, tmp_path: Path
) -> None:
    """By putting disk, memory and what is known of them back, as only a test may."""
    shell(server, vm, "sync")
    server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id))
    server.stop()
    own = server.state / "vms" / vm.id
    kept = [*own.glob("disk*"), *server.state.glob("ingle.db*"), own / "memory"]
    copy = ("cp", "-a", "--sparse=always")
    subprocess.run([*copy, *kept, tmp_path], check=True)
    drawn = []
    for _ in range(2):
        server.start()
        drawn.append(shell(server, vm, "cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | md5sum"))
        server.vms.KillVm(vm_pb2.KillVmRequest(vm=vm.id))
        server.stop()
        for path in kept:
            subprocess.run([*copy, tmp_path / path.name, path.parent], check=True)
    assert drawn[0] != drawn[1]
    server.start()


def test_whoever_comes_wakes_it_once_and_exec_works(server: Server, vm: vm_pb2.Vm) -> None:
    before = count(server, vm)
    server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id))
    with ThreadPoolExecutor(12) as callers:
        said = list(callers.map(lambda number: shell(server, vm, f"echo {number}"), range(12)))
    assert said == [str(number) for number in range(12)]
    assert len([line for line in server.vmm_processes().values() if vm.id in line]) == 1
    goes_on(server, vm, before)


def test_a_paused_guest_takes_no_time_and_goes_on_with_the_right_one(server: Server, vm: vm_pb2.Vm) -> None:
    before = count(server, vm)
    assert server.vms.PauseVm(vm_pb2.PauseVmRequest(vm=vm.id)).vm.state == PAUSED
    used = _cpu_ticks(vm.pid)
    time.sleep(1.5)
    assert _cpu_ticks(vm.pid) - used <= 10
    assert server.vms.ResumeVm(vm_pb2.ResumeVmRequest(vm=vm.id)).vm.state == RUNNING
    assert clock_offset(server, vm) < 0.05
    goes_on(server, vm, before)


def test_one_that_was_paused_hibernates_and_goes_on(server: Server, vm: vm_pb2.Vm) -> None:
    before = count(server, vm)
    server.vms.PauseVm(vm_pb2.PauseVmRequest(vm=vm.id))
    server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id))
    assert server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id)).vm.state == RUNNING
    goes_on(server, vm, before)


@pytest.mark.parametrize("verb", ["pause", "hibernate"])
def test_a_guest_hears_of_the_name_that_it_was_given_while_it_slept(server: Server, vm: vm_pb2.Vm, verb: str) -> None:
    if verb == "pause":
        server.vms.PauseVm(vm_pb2.PauseVmRequest(vm=vm.id))
    else:
        server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id))
    request = vm_pb2.UpdateVmRequest(vm=vm.id, spec=vm_pb2.VmSpec(name="dreamer"))
    request.update_mask.paths.append("name")
    server.vms.UpdateVm(request)
    assert shell(server, vm, "hostname") == "dreamer"


def test_hooks_run_in_the_guest_when_it_falls_asleep_and_wakes(server: Server, vm: vm_pb2.Vm) -> None:
    for hook in ("suspend", "resume"):
        script = f"printf '#!/bin/sh\\necho {hook} >>/root/hooks\\n' >/etc/ingle/hooks/{hook}"
        shell(server, vm, f"{script}; chmod 755 /etc/ingle/hooks/{hook}")
    server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id))
    assert shell(server, vm, "cat /root/hooks") == "suspend\nresume"


def test_what_was_on_disk_is_there_when_the_memory_is_thrown_away(server: Server, vm: vm_pb2.Vm) -> None:
    shell(server, vm, "echo unsynced >/root/late")
    server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id))
    server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id))
    again = server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id)).vm
    assert again.boot_id != vm.boot_id
    assert shell(server, vm, "cat /root/late /root/marker") == "unsynced\non-disk"


@pytest.mark.parametrize("verb", ["HibernateVm", "WakeVm"])
@pytest.mark.parametrize("after", mostly_slow([0.0, 0.1, 0.25, 0.5], 0.1))
def test_a_server_that_is_killed_while_a_guest_falls_asleep_or_wakes_loses_nothing(
    server: Server, vm: vm_pb2.Vm, verb: str, after: float
) -> None:
    before = count(server, vm)
    if verb == "WakeVm":
        server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id))
    asking = threading.Thread(target=_in_vain, args=(server.vms, verb, vm))
    asking.start()
    time.sleep(after)
    server.kill()
    asking.join()
    server.start()
    assert server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm.state in {RUNNING, PAUSED, HIBERNATED}
    goes_on(server, vm, before)


def test_a_memory_whose_file_is_cut_is_refused_and_a_restart_boots(server: Server, vm: vm_pb2.Vm) -> None:
    server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id))
    memory = server.state / "vms" / vm.id / "memory"
    largest = max(memory.iterdir(), key=lambda file: file.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    assert "damaged" in refused(server.vms.WakeVm, vm_pb2.WakeVmRequest(vm=vm.id)).message
    server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=vm.id))
    assert shell(server, vm, "cat /root/marker") == "on-disk"


def test_a_vmm_that_is_killed_while_it_is_paused_is_told(server: Server, vm: vm_pb2.Vm) -> None:
    server.vms.PauseVm(vm_pb2.PauseVmRequest(vm=vm.id))
    os.kill(vm.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm.state != vm_pb2.VM_STATE_ERROR:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_guest_that_began_with_a_memory_falls_asleep_and_wakes_as_any_other(server: Server) -> None:
    spec = vm_pb2.VmSpec(name="dozer", boot_mode=vm_pb2.BOOT_MODE_WARM)
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm
    shell(server, vm, "echo in-memory >/run/marker")
    for _ in range(2):
        server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id))
        assert shell(server, vm, "cat /run/marker") == "in-memory"


def test_a_session_is_there_again_when_its_guest_wakes(server: Server, vm: vm_pb2.Vm) -> None:
    size = guest_pb2.TerminalSize(rows=24, columns=80)
    program = guest_pb2.SessionProgram(argv=["cat"], size=size)
    server.guest.CreateSession(guest_pb2.CreateSessionRequest(vm=vm.id, session_id="s", program=program))
    server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id))
    (session,) = server.guest.ListSessions(guest_pb2.ListSessionsRequest(vm=vm.id)).sessions
    assert session.id == "s"


def test_a_guest_that_does_nothing_falls_asleep_and_a_connection_to_its_port_keeps_it_awake(server: Server) -> None:
    port = free_port()
    ports = [vm_pb2.PublishedPort(host_port=port, vm_port=80, address="127.0.0.1")]
    spec = vm_pb2.VmSpec(ports=ports, memory_bytes=256 << 20, labels={"kind": "idle"})
    spec.hibernate_after.FromSeconds(4)
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm
    assert server.run(vm.id, "perl", "-e", SERVE)[0] == 0
    with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
        caller.sendall(b"hello\n")
        assert caller.recv(6) == b"hello\n"
        time.sleep(15)
        assert server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm.state == RUNNING
    deadline = time.monotonic() + 60
    while server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm.state != HIBERNATED:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert server.run(vm.id, "echo", "awake")[1] == b"awake\n"


def _in_vain(vms: object, verb: str, vm: vm_pb2.Vm) -> None:
    try:
        getattr(vms, verb)(getattr(vm_pb2, f"{verb}Request")(vm=vm.id))
    except (grpc.RpcError, ValueError):
        return


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])

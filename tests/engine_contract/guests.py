"""Guests, each of which came to be in another way, and what each of them says about itself."""

import queue
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import Client
from ingle.v1 import guest_pb2, snapshot_pb2, vm_pb2

FORKS = tuple(f"fork-{number}" for number in range(1, 9))
WAYS = ("boot", "warm", "kept", "wake", "restore", *FORKS)
"""How a guest came to be; `kept` is one of which a snapshot was made, and which goes on. So the VMs are called, too,
but that the one which is restored is the one that was kept."""
FROM_MEMORY = WAYS[2:]
"""Whose programs were in the middle of something."""
SNAPSHOT = ("kept", "restore", *FORKS)
"""What has the memory of one and the same guest."""

TIMER_SECONDS = 5

_GATEWAY = "10.0.2.2"
_ECHO_PORT = 7
_WITNESS = Path(__file__).with_name("witness.pl").read_text()
_ROUNDS = 5

_TIMER = f"""mkdir /run/timer || exit 0
cut -d' ' -f1 /proc/uptime >/run/timer/begun
(sleep {TIMER_SECONDS}; cut -d' ' -f1 /proc/uptime >>/run/timer/ended) >/dev/null 2>&1 &
"""
_BEGIN = """
echo "in the memory of $1" >/run/marker; echo "on the disk of $1" >/root/marker
mkdir -p /etc/ssh /etc/ingle/hooks
echo "private key of $1" >/etc/ssh/ssh_host_ed25519_key; echo "public key of $1" >/etc/ssh/ssh_host_ed25519_key.pub
printf '#!/bin/sh\\n%s' "$3" >/etc/ingle/hooks/suspend; chmod 755 /etc/ingle/hooks/suspend
cat >/run/witness.pl
setsid perl /run/witness.pl /run/witness "$2" >/run/said 2>&1 </dev/null &
until test -S /run/witness; do kill -0 $! || { cat /run/said; exit 1; }; sleep 0.1; done
"""
_ECHO = f"""
setsid perl -MIO::Socket::INET -e '$SIG{{CHLD}} = "IGNORE"; $l = IO::Socket::INET->new(LocalPort => {_ECHO_PORT},
    Listen => 20) or die; print STDERR "listens\\n";
    while ($c = $l->accept) {{ next if fork; syswrite $c, $b while sysread $c, $b, 64; exit }}' \\
    >/run/echo 2>&1 </dev/null &
until grep -q listens /run/echo; do kill -0 $! || {{ cat /run/echo; exit 1; }}; sleep 0.1; done
"""
COMPLAINTS = r"""dmesg | awk '/Run .init as init process/ { n = 0 }
    tolower($0) ~ /ext4-fs (error|warning)|i\/o error|call trace/ { n++ } END { print n + 0 }'"""
"""How many the kernel has had since it runs programs: before, it complains of the processor of an emulated machine."""

_OBSERVE = rf"""
echo hostname $(cat /proc/sys/kernel/hostname)
echo etc_hostname $(cat /etc/hostname)
echo machine_id $(cat /etc/machine-id)
echo mac $(cat /sys/class/net/eth0/address)
echo address $(ip -4 -o addr show dev eth0 scope global | awk '{{ print $4 }}')
echo boot_id $(cat /proc/sys/kernel/random/boot_id)
echo uuid $(cat /proc/sys/kernel/random/uuid)
echo urandom $(od -An -tx1 -N16 /dev/urandom)
echo getrandom $(perl -e 'require "syscall.ph"; syscall(&SYS_getrandom, $b = "\0" x 16, 16, 0); print unpack "H*", $b')
echo host_key $(cat /etc/ssh/ssh_host_ed25519_key.pub 2>/dev/null)
echo in_memory $(cat /run/marker 2>/dev/null)
echo on_disk $(cat /root/marker 2>/dev/null)
echo file_system_errors $(cat /sys/fs/ext4/*/errors_count)
echo complaints $({COMPLAINTS})
echo writes $(echo written >/root/written && sync /root/written && cat /root/written)
echo "$1" >/run/certificate
echo certificate $(openssl verify -CAfile /run/certificate /run/certificate 2>&1)
test ! -S /run/witness || perl -MIO::Socket::UNIX -e 'print IO::Socket::UNIX->new("/run/witness")->getlines'
"""
_TIMED = """until test -e /run/timer/ended; do sleep 0.1; done; sleep 1
cat /run/timer/begun /run/timer/ended"""


@dataclass(frozen=True)
class Seen:
    """One guest, as it was just after it came to be."""

    vm: vm_pb2.Vm
    token: bytes
    told: Mapping[str, str]
    """By what a guest says of itself, see _OBSERVE and witness.pl."""
    clock: tuple[float, float]
    """Between what and what the guest's clock is ahead of the host's, seconds."""


@dataclass(frozen=True)
class World:
    """All guests of one engine, and the server that has them."""

    server: Client
    seen: Mapping[str, Seen]
    """By the way they came to be."""
    timers: Mapping[str, list[float]]
    """Of the same: when a timer began, and each time that it fired, in the guest's seconds."""
    asleep: Seen
    """The guest that woke, before it fell asleep."""

    @property
    def shared(self) -> bool:
        """Whether they are in one network, where each has an address of its own, and the one that was booted is the
        other end of their connections to others; and not each in one of its own with the host at the other end."""
        return self.seen["boot"].vm.network != "user"


def create(
    server: Client, engine: str, name: str, mode: "vm_pb2.BootMode.ValueType" = vm_pb2.BOOT_MODE_WARM
) -> vm_pb2.Vm:
    """A VM that runs."""
    spec = vm_pb2.VmSpec(name=name, engine=engine, boot_mode=mode)
    return server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm


def shell(server: Client, vm: vm_pb2.Vm, script: str, *arguments: str, stdin: bytes | None = None) -> str:
    """What a script says that succeeds."""
    code, out, err = server.run(vm.id, "sh", "-c", script, "sh", *arguments, stdin=stdin)
    assert code == 0, (out, err)
    return out.decode()


def clock_ahead(server: Client, vm: vm_pb2.Vm) -> tuple[float, float]:
    """By what a guest's clock is ahead of the host's at least and at most, seconds. One program reads it again and
    again, so that no start of a program is between the question and the answer."""
    questions: queue.SimpleQueue[guest_pb2.ExecRequest | None] = queue.SimpleQueue()
    read = "$| = 1; print Time::HiRes::time(), qq(\\n) while <STDIN>"
    start = guest_pb2.ExecStart(vm=vm.id, argv=["perl", "-MTime::HiRes", "-e", read], open_stdin=True)
    questions.put(guest_pb2.ExecRequest(start=start))
    answers = server.guest.Exec(iter(questions.get, None))
    least, most = float("-inf"), float("inf")
    for _ in range(_ROUNDS):
        before = time.time()
        questions.put(guest_pb2.ExecRequest(stdin_data=b"\n"))
        shown = float(next(answer.stdout_data for answer in answers if answer.stdout_data))
        after = time.time()
        least, most = max(least, shown - after), min(most, shown - before)
    questions.put(guest_pb2.ExecRequest(stdin_eof=guest_pb2.ExecStdinEof()))
    assert [answer.exited.exit_code for answer in answers if answer.HasField("exited")] == [0]
    questions.put(None)
    return least, most


@contextmanager
def echo_server() -> Iterator[int]:
    """A port of the host whose connections say what they are told."""

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while said := connection.recv(4096):
                    connection.sendall(said)
            except OSError:  # whoever it was is gone
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # it is closed
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def made(server: Client, engine: str, certificate: str, port: int) -> World:
    """Guests of each way to come to be. `certificate` was issued just now, in PEM; `port` is an `echo_server`'s of the
    host's, for those to connect to that have a network of their own."""
    others = f"{_GATEWAY}:{port}"
    seen: dict[str, Seen] = {}

    def look(way: str, vm: vm_pb2.Vm) -> Seen:
        clock = clock_ahead(server, vm)
        told = dict(line.partition(" ")[::2] for line in shell(server, vm, _OBSERVE, certificate).splitlines())
        seen[way] = Seen(vm, _token(server, vm), told, clock)
        return seen[way]

    def begin(vm: vm_pb2.Vm) -> None:
        shell(server, vm, _BEGIN, vm.name, others, _TIMER, stdin=_WITNESS.encode())

    for way, mode in (("boot", vm_pb2.BOOT_MODE_COLD), ("warm", vm_pb2.BOOT_MODE_WARM)):
        vm = look(way, create(server, engine, way, mode)).vm
        shell(server, vm, _TIMER)
    booted = seen["boot"].vm
    if booted.network != "user":
        shell(server, booted, _ECHO)
        others = f"{booted.address}:{_ECHO_PORT}"

    kept = create(server, engine, "kept")
    begin(kept)
    server.snapshots.CreateSnapshot(snapshot_pb2.CreateSnapshotRequest(vm="kept", name="then"))
    look("kept", kept)
    timers = {"kept": _timed(server, kept)}
    forked = server.vms.ForkVm(vm_pb2.ForkVmRequest(snapshot="then", count=len(FORKS), name="fork-{}")).vms
    with ThreadPoolExecutor(len(FORKS)) as pool:
        list(pool.map(look, FORKS, forked))

    sleeper = create(server, engine, "wake")
    begin(sleeper)
    asleep = look("wake", sleeper)
    server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm="wake"))
    look("wake", server.vms.WakeVm(vm_pb2.WakeVmRequest(vm="wake")).vm)

    shell(server, kept, "echo later >/run/marker; echo later >/root/marker; sync")
    look("restore", server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="kept", snapshot="then")).vm)
    timers |= {way: _timed(server, seen[way].vm) for way in WAYS if way != "kept"}
    return World(server, seen, timers, asleep)


def _token(server: Client, vm: vm_pb2.Vm) -> bytes:
    with sqlite3.connect(f"file:{server.state / 'ingle.db'}?mode=ro", uri=True) as db:
        ((token,),) = db.execute("SELECT token FROM vms WHERE id = ?", (vm.id,)).fetchall()
    return bytes(token)


def _timed(server: Client, vm: vm_pb2.Vm) -> list[float]:
    return [float(line) for line in shell(server, vm, _TIMED).split()]

"""The root helper: what a VM's start and end take of it, beside the same work without it and beside forks of programs.

Root; network namespaces of its own. `make bench-helper`.
"""

import argparse
import fcntl
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPRoute

from bench.measure import Figure, Row, Sample, alternately, ratio_row, rss_mib, sum_row, table, told_row, write_json
from helper.process import UID, Helper, helper_in_namespace, vm
from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper import neighbours, rtnetlink
from ingle.host_helper.names import OUR_GROUP
from ingle.host_helper.nft import open_nft

MANY = 200
SLOT, HOST_PORT = 254, 8080
"""Of the VM that comes and goes."""

START_TIMES, START_SECONDS = 2.0, 0.0006
FORKS_SHARE = 0.25
MANY_TIMES = 1.5
RSS_MIB = 45.0

# linux/if_tun.h, linux/if_link.h, linux/rtnetlink.h
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_IFF_TAP_NO_PI = 0x1002
_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWNEIGH, _RTM_DELNEIGH = 16, 17, 28, 29
_IFLA_MASTER, _IFLA_GROUP = 10, 27
_LINK = struct.Struct("=BxHiII")

_MAC = "02:69:6e:67:00:fe"
_IPV4, _IPV6, _LOCAL = "10.213.0.254", "fd69:6e67:6c65::fe", "fe80::69:6eff:fe67:fe"
# What the helper says to nft about this VM, with another name for tables and interfaces.
_ELEMENTS = f"""
element inet bare bound4 {{ "bare0" . {_IPV4} }}
element bridge bare macs {{ "bare1" . {_MAC} }}
element bridge bare sources4 {{ "bare1" . {_MAC} . {_IPV4} }}
element inet bare bound6 {{ "bare0" . {_IPV6} }}
element bridge bare sources6 {{ "bare1" . {_MAC} . {_IPV6}, "bare1" . {_MAC} . {_LOCAL} }}
element bridge bare targets6 {{ "bare1" . 0xfd696e676c65000000000000000000fe }}
element bridge bare targets6 {{ "bare1" . 0xfe8000000000000000696efffe6700fe }}
element inet bare nat4 {{ {_IPV4} }}
element inet bare nat6 {{ {_IPV6} }}
element inet bare ports4 {{ tcp . 8081 : {_IPV4} . 80 }}
element inet bare ports6 {{ tcp . 8081 : {_IPV6} . 80 }}
element inet bare open4 {{ {_IPV4} . tcp . 80 }}
element inet bare open6 {{ {_IPV6} . tcp . 80 }}
"""
_RULES = Path(sys.modules[open_nft.__module__].__file__ or "").with_name("rules.nft")


class Calls:
    """A VM's start and end through a helper."""

    def __init__(self, helper: Helper) -> None:
        self._stub = helper.stub
        port = pb.PublishedPort(vm_id=vm(1), slot=SLOT, protocol=pb.PROTOCOL_TCP, host_port=HOST_PORT, vm_port=80)
        self._start = pb.ApplyRequest(
            changes=[
                pb.Change(ensure_network=pb.EnsureNetworkRequest(network=0)),
                pb.Change(create_tap=pb.CreateTapRequest(vm_id=vm(1), slot=SLOT)),
                pb.Change(set_nat=pb.SetNatRequest(vm_id=vm(1), slot=SLOT, enabled=True)),
                pb.Change(publish_port=pb.PublishPortRequest(port=port)),
            ]
        )
        self._end = pb.DeleteTapRequest(vm_id=vm(1), slot=SLOT)
        self._stub.EnsureNetwork(pb.EnsureNetworkRequest(network=0))

    def ping(self) -> None:
        self._stub.Ping(pb.PingRequest())

    def start(self) -> None:
        self._stub.Apply(self._start)

    def end(self) -> None:
        self._stub.DeleteTap(self._end)

    def fill(self) -> None:
        """There are as many other VMs as are told of, each with a tap, NAT and a port."""
        slots = range(2, 2 + MANY - 1)
        wanted = pb.ReconcileRequest(
            networks=[0],
            taps=[pb.WantedTap(vm_id=vm(slot), slot=slot, nat=True) for slot in slots],
            ports=[
                pb.PublishedPort(
                    vm_id=vm(slot), slot=slot, protocol=pb.PROTOCOL_TCP, host_port=20000 + slot, vm_port=80
                )
                for slot in slots
            ],
        )
        self._stub.Reconcile(wanted)


class Bare:
    """The same system calls, with everything that is in them put together beforehand. `spare`: the tap stays, and gets
    another owner. To be used inside of the namespace."""

    def __init__(self, spare: bool) -> None:
        self._spare = spare
        self._nft = open_nft()
        self._nft.run(_RULES.read_text().replace(" ingle {", " bare {").replace("$pool4", "10.213.0.0/16"))
        for command in "ip link add bare0 type bridge", "ip link set bare0 up":
            _run(*command.split())
        self._bridge = socket.if_nametoindex("bare0")
        self._come, self._go = (
            "".join(f"{verb} {line}\n" for line in _ELEMENTS.splitlines() if line) for verb in ("add", "delete")
        )
        bodies = [neighbours.pack(self._bridge, _MAC, address) for address in (_IPV4, _IPV6, _LOCAL)]
        self._known = [rtnetlink.change(_RTM_NEWNEIGH, 0x500, body) for body in bodies]
        self._unknown = [rtnetlink.change(_RTM_DELNEIGH, 0, body) for body in bodies]
        if spare:
            with self._tap():
                self._keep()

    def close(self) -> None:
        _run("ip", "link", "delete", "bare0")
        if self._spare:
            _run("ip", "link", "delete", "bare1")
        self._nft.run("delete table inet bare\ndelete table bridge bare\n")

    def start(self) -> None:
        self._nft.run(self._come)
        with self._tap() as tap:
            fcntl.ioctl(tap, _TUNSETOWNER, UID)
            if not self._spare:
                self._keep()
                fcntl.ioctl(tap, _TUNSETPERSIST, 1)
        self.tell()

    def tell(self) -> None:
        assert rtnetlink.ask(self._known) == [0] * len(self._known)

    def untell(self) -> None:
        assert rtnetlink.ask(self._unknown) == [0] * len(self._unknown)

    def end(self) -> None:
        self._nft.run(self._go)
        self.untell()
        if not self._spare:
            index = socket.if_nametoindex("bare1")
            rtnetlink.ask([rtnetlink.change(_RTM_DELLINK, 0, _LINK.pack(0, 0, index, 0, 0))])
            return
        with self._tap() as tap:
            fcntl.ioctl(tap, _TUNSETOWNER, 0)

    @contextmanager
    def _tap(self) -> Iterator[int]:
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", b"bare1", _IFF_TAP_NO_PI))
        if self._spare:
            fcntl.ioctl(tap, _TUNSETPERSIST, 1)
        yield tap
        os.close(tap)

    def _keep(self) -> None:
        body = _LINK.pack(0, 0, socket.if_nametoindex("bare1"), 1, 1)
        body += rtnetlink.attribute(_IFLA_GROUP, struct.pack("=I", OUR_GROUP + 2))
        body += rtnetlink.attribute(_IFLA_MASTER, struct.pack("=I", self._bridge))
        assert rtnetlink.ask([rtnetlink.change(_RTM_NEWLINK, 0, body)]) == [0]


class Forks:
    """What scripts do for the same: a tap on a bridge, NAT, a port. None of the rules against spoofing."""

    NAT = f"iptables -t nat {{}} POSTROUTING -s {_IPV4} -j MASQUERADE"
    PORT = f"iptables -t nat {{}} PREROUTING -p tcp --dport 8082 -j DNAT --to {_IPV4}:80"
    PASS = "iptables {} FORWARD -i forks1 -j ACCEPT", "iptables {} FORWARD -o forks1 -j ACCEPT"

    def __init__(self) -> None:
        for command in "ip link add forks0 type bridge", "ip link set forks0 up":
            _run(*command.split())

    def close(self) -> None:
        _run("ip", "link", "delete", "forks0")

    def start(self) -> None:
        _run(*f"ip tuntap add forks1 mode tap user {UID}".split())
        _run(*"ip link set forks1 master forks0 up".split())
        for rule in (self.NAT, self.PORT, *self.PASS):
            _run(*rule.format("-A").split())

    def end(self) -> None:
        for rule in (self.NAT, self.PORT, *self.PASS):
            _run(*rule.format("-D").split())
        _run(*"ip link delete forks1".split())


def _run(*argv: str) -> None:
    """By the quickest way there is to fork."""
    program = f"/usr/sbin/{argv[0]}"
    _, status = os.waitpid(os.posix_spawn(program, argv, os.environ), 0)
    assert status == 0, argv


def once(work: Callable[[], object], undo: Callable[[], object]) -> Callable[[], float]:
    """Seconds that `work` takes; undone afterwards, which doesn't count."""

    def turn() -> float:
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        undo()
        return seconds

    return turn


def both(work: Callable[[], object], undo: Callable[[], object]) -> tuple[Callable[[], float], Callable[[], float]]:
    """The seconds of a start, and the seconds of an end."""

    def end() -> float:
        work()
        return once(undo, lambda: None)()

    return once(work, undo), end


def starts(helper: Helper, count: int, spare: bool) -> list[Row]:
    """Through the helper, and the bare work, in turn."""

    def measure() -> list[Row]:
        bare, calls = Bare(spare), Calls(helper)
        (start, end), (bare_start, bare_end) = both(calls.start, calls.end), both(bare.start, bare.end)
        how = "with a spare tap" if spare else "with a new tap"
        begun, floor = alternately(count, start, bare_start)
        ended, end_floor = alternately(count, end, bare_end)
        rows = [
            sum_row(f"a VM's start, {how}", begun, "its system calls alone", floor, START_TIMES, START_SECONDS),
            told_row("a VM's end", ended, "its system calls alone", end_floor),
        ]
        if spare:
            ping, _ = alternately(count, once(calls.ping, lambda: None), lambda: 0.0)
            rows.append(told_row("a VM's start", begun, "a call that does nothing", ping))
        bare.close()
        return rows

    return helper.namespace.do(measure)


def against_library(helper: Helper, count: int) -> Row:
    """Why the helper speaks rtnetlink itself: what it tells at each start, and the same by pyroute2."""

    def measure() -> tuple[Sample, Sample]:
        bare, library = Bare(spare=True), IPRoute()
        index = socket.if_nametoindex("bare0")
        addresses = (_IPV4, _IPV6, _LOCAL)

        def told() -> None:
            for address in addresses:
                library.neigh("replace", dst=address, lladdr=_MAC, ifindex=index, state="permanent")

        def untold() -> None:
            for address in addresses:
                library.neigh("delete", dst=address, ifindex=index)

        samples = alternately(count, once(bare.tell, bare.untell), once(told, untold))
        library.close()
        bare.close()
        return samples

    ours, theirs = helper.namespace.do(measure)
    return told_row("the kernel told where a VM is", ours, "by pyroute2", theirs)


def memory_of_library() -> Figure:
    """What importing it adds to a process."""
    told = "import socket, {}; print(*[line.split()[1] for line in open('/proc/self/status') if line[:6] == 'VmRSS:'])"
    without, loaded = (
        int(subprocess.check_output([sys.executable, "-c", told.format(name)])) for name in ("struct", "pyroute2")
    )
    return Figure("memory of pyroute2, loaded", (loaded - without) / 1024, "MiB")


def against_forks(helper: Helper, count: int) -> Row:
    """The same by `ip` and `iptables`."""

    def measure() -> tuple[Sample, Sample]:
        forks, calls = Forks(), Calls(helper)
        samples = alternately(count, once(calls.start, calls.end), once(forks.start, forks.end))
        forks.close()
        return samples

    return ratio_row("a VM's start", *_named(helper.namespace.do(measure), "ip and iptables, 6 forks"), FORKS_SHARE)


def one_of_many(helper: Helper, full: Helper, count: int) -> list[Row]:
    """With nobody else there, and with as many others as are told of."""
    alone, among = Calls(helper), Calls(full)
    among.fill()
    (start, end), (floor_start, floor_end) = both(among.start, among.end), both(alone.start, alone.end)
    return [
        ratio_row(f"start of VM {MANY}", *_named(alternately(count, start, floor_start), "of the only VM"), MANY_TIMES),
        ratio_row(f"end of VM {MANY}", *_named(alternately(count, end, floor_end), "of the only VM"), MANY_TIMES),
    ]


def _named(samples: tuple[Sample, Sample], floor: str) -> tuple[Sample, str, Sample]:
    return samples[0], floor, samples[1]


def memory(helper: Helper, when: str) -> Figure:
    assert helper.process is not None
    (pid,) = Path(f"/proc/{helper.process.pid}/task/{helper.process.pid}/children").read_text().split() or [
        str(helper.process.pid)
    ]
    return Figure(f"memory of the helper, {when}", rss_mib(int(pid)), "MiB", RSS_MIB)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    arguments = parser.parse_args()
    count, few = (30, 10) if arguments.quick else (500, 60)
    with (
        helper_in_namespace(spare_taps=16) as spare,
        helper_in_namespace(spare_taps=0) as none,
        helper_in_namespace(spare_taps=16) as full,
    ):
        figures = [memory(spare, "idle")]
        rows = starts(spare, count, spare=True)
        rows += starts(none, few, spare=False)
        rows.append(against_forks(spare, few))
        rows.append(against_library(spare, count))
        rows += one_of_many(spare, full, count)
        figures.append(memory_of_library())
        figures.append(memory(full, f"after {2 * count} starts beside {MANY} VMs"))
    print(table(rows))
    print(*figures, sep="\n")
    if arguments.json:
        write_json(arguments.json, rows, figures)


if __name__ == "__main__":
    main()

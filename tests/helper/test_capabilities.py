"""Of root's rights a helper keeps those of its part alone, however it was started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helper.process import UID, Helper, eventually, vm
from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper.capabilities import NETWORK

NETWORK_NAMES = ["CAP_CHOWN", "CAP_DAC_READ_SEARCH", "CAP_NET_ADMIN"]


def capability_sets(status: Path) -> dict[str, set[int]]:
    """Of a thread: proc_pid_status(5)."""
    lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
    return {name: {bit for bit in range(64) if int(lines[name], 16) >> bit & 1} for name in lines if name[:3] == "Cap"}


def test_no_thread_of_a_helper_has_more_than_its_part_takes(own_helper: Helper) -> None:
    own_helper.tap(2)  # all threads that there are to be are there
    assert own_helper.process is not None
    threads = list(Path(f"/proc/{own_helper.process.pid}/task").iterdir())
    assert len(threads) > 2
    for thread in threads:
        assert capability_sets(thread / "status") == {
            "CapEff": NETWORK,
            "CapPrm": NETWORK,
            "CapBnd": NETWORK,
            "CapInh": set(),
            "CapAmb": set(),
        }
        assert "NoNewPrivs:\t1" in (thread / "status").read_text()


def test_a_helper_says_what_it_may_when_it_starts_and_when_it_is_asked(own_helper: Helper) -> None:
    eventually(lambda: '"serving"' in own_helper.said())
    serving = [json.loads(line) for line in own_helper.said().splitlines() if '"serving"' in line]
    assert [line["capabilities"] for line in serving] == [NETWORK_NAMES]
    assert own_helper.stub.Examine(pb.ExamineRequest()).capabilities == NETWORK_NAMES


def test_every_verb_of_a_network_works_with_what_is_kept(own_helper: Helper) -> None:
    helper = own_helper
    disk = helper.state / "vms" / vm(1) / "disk.raw"
    disk.parent.mkdir(mode=0o700)
    disk.touch(0o600)
    for path in (disk.parent, disk):
        os.chown(path, UID, UID)
    port = pb.PublishedPort(vm_id=vm(1), slot=2, protocol=pb.PROTOCOL_TCP, host_port=8080, vm_port=80)
    owner = pb.ChownVmFileRequest(vm_id=vm(1), file=pb.VM_FILE_RAW_DISK, uid=30000)
    requests = [
        pb.PingRequest(),
        pb.EnsureNetworkRequest(network=0),
        pb.CreateTapRequest(vm_id=vm(1), slot=2),
        pb.SetNatRequest(vm_id=vm(1), slot=2, enabled=True),
        pb.LimitTapRequest(vm_id=vm(1), slot=2, bytes_per_second=1 << 20),
        pb.PublishPortRequest(port=port),
        owner,
        pb.ExamineRequest(),
        pb.FindOverlapsRequest(),
        pb.ListRequest(),
        pb.ReconcileRequest(networks=[0], taps=[pb.WantedTap(vm_id=vm(1), slot=2)], ports=[port]),
        pb.UnpublishPortRequest(port=port),
        pb.DeleteTapRequest(vm_id=vm(1), slot=2),
        pb.ApplyRequest(changes=[pb.Change(delete_network=pb.DeleteNetworkRequest(network=0))]),
        pb.DeleteNetworkRequest(network=0),
    ]
    for request in requests:
        getattr(helper.stub, type(request).__name__.removesuffix("Request"))(request)
    assert {line["verb"] for line in helper.audit()} == {
        method.name
        for method in pb.DESCRIPTOR.services_by_name["HelperService"].methods
        if not method.name.endswith("SnapshotDevice")  # tests/lab has device-mapper
    }
    assert disk.stat().st_uid == 30000
    assert helper.namespace.links() == {"lo"}


def test_a_helper_that_is_given_too_little_says_what_and_does_not_start(own_helper: Helper) -> None:
    own_helper.stop()
    argv = ["setpriv", "--bounding-set", "-net_admin", *own_helper.argv()]
    started = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert started.returncode == 77
    assert started.stderr == "ingle-helper: CAP_NET_ADMIN: needed, and not given to this process\n"


TRY_EVERYTHING = """
import ctypes, json, os, socket, subprocess, sys
from pathlib import Path
from ingle.host_helper import capabilities

libc = ctypes.CDLL(None, use_errno=True)
others, other_process, part = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if part:
    capabilities.keep(getattr(capabilities, part))

def unshared():
    if libc.unshare(0x20000) != 0:  # CLONE_NEWNS
        raise PermissionError

def made_interface():
    subprocess.run(["ip", "link", "add", "made0", "type", "bridge"], check=True, capture_output=True)

def works(what):
    try:
        what()
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True

# The mildest last: nothing of it is in the way of what comes after.
tried = {
    "lists others' directories": lambda: list(others.iterdir()),
    "writes to others' files": lambda: (others / "file").write_text("x"),
    "changes owners": lambda: os.chown(others / "file", 23456, 0),
    "changes modes of others' files": lambda: (others / "file").chmod(0o640),
    "makes devices": lambda: os.mknod("device", 0o60600, os.makedev(7, 0)),
    "makes interfaces, by a program that it starts": made_interface,
    "makes namespaces": unshared,
    "sends raw packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "ends others' processes": lambda: os.kill(other_process, 0),
    "is nicer to itself": lambda: os.nice(-1),
    "changes its root": lambda: os.chroot("/"),
    "becomes another user": lambda: os.setuid(23456),
}
print(json.dumps([name for name, what in tried.items() if works(what)]))
"""


@pytest.mark.parametrize(
    ("part", "works"),
    [
        (
            "NETWORK",
            {"lists others' directories", "changes owners", "makes interfaces, by a program that it starts"},
        ),
        (
            "DEVICES",
            {
                "lists others' directories",
                "writes to others' files",
                "changes owners",
                "makes devices",
                "makes namespaces",
            },
        ),
    ],
)
def test_what_is_given_up_can_not_be_done(tmp_path: Path, part: str, works: set[str]) -> None:
    if os.getuid() != 0:
        pytest.skip("only root has rights to give up")
    everything = tried(tmp_path / "all", "")
    assert len(everything) == TRY_EVERYTHING.count(": lambda: ") + 2, "root can do it all here"
    assert tried(tmp_path / "kept", part) == works


def tried(directory: Path, part: str) -> set[str]:
    """What of it works with the rights of `part`; with all for none."""
    others = directory / "others"
    others.mkdir(mode=0o700, parents=True)
    (others / "file").touch(0o600)
    for path in (others / "file", others):
        os.chown(path, UID, UID)
    with subprocess.Popen(["sleep", "600"], user=UID) as other:
        try:
            argv = ["unshare", "--net", sys.executable, "-c", TRY_EVERYTHING, str(others), str(other.pid), part]
            done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=False, timeout=60)
        finally:
            other.kill()
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))

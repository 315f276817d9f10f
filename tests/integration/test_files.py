"""`vm cp` and `vm file` against a real guest."""

import subprocess
import sys
from pathlib import Path

from harness import Server
from ingle.v1 import vm_pb2
from trees import SPARSE_SIZE, facts, make_tree

_FILES = 5000


def attempt(server: Server, *arguments: str | Path, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    environment = {**server.env, "INGLE_SOCKET": str(server.socket)}
    return subprocess.run(
        [sys.executable, "-m", "ingle.cli", *arguments], env=environment, input=stdin, capture_output=True, check=False
    )


def ingle(server: Server, *arguments: str | Path, stdin: bytes = b"") -> bytes:
    ended = attempt(server, *arguments, stdin=stdin)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout


def test_a_tree_of_thousands_makes_the_round_trip_unchanged(
    server: Server, shared_vm: vm_pb2.Vm, tmp_path: Path
) -> None:
    tree, back = make_tree(tmp_path / "tree", _FILES), tmp_path / "back"
    ingle(server, "vm", "cp", "-a", tree, f"{shared_vm.name}:/root")
    sparse = server.run(shared_vm.id, "sh", "-c", "ls -A /root/tree | wc -l; stat -c '%s %b' /root/tree/odd/sparse")[1]
    entries, size, blocks = map(int, sparse.split())
    assert (entries, size) == (len(list(tree.iterdir())), SPARSE_SIZE)
    assert blocks * 512 < SPARSE_SIZE // 10
    ingle(server, "vm", "cp", "-a", f"{shared_vm.name}:/root/tree", back)
    assert facts(back) == facts(tree)
    ingle(server, "vm", "file", "rm", "-r", shared_vm.name, "/root/tree")


def test_a_full_disk_is_told_with_what_to_type_and_the_file_stays(
    server: Server, shared_vm: vm_pb2.Vm, tmp_path: Path
) -> None:
    vm = shared_vm.name
    server.run(shared_vm.id, "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/mnt")
    ingle(server, "vm", "file", "write", vm, "/mnt/file", stdin=b"old")
    full = attempt(server, "vm", "file", "write", vm, "/mnt/file", stdin=bytes(3_000_000))
    remedy = f"ingle vm stats {vm}".encode()
    assert (full.returncode, b"no space left" in full.stderr, remedy in full.stderr) == (1, True, True)
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    assert attempt(server, "vm", "cp", tmp_path / "large", f"{vm}:/mnt/file").returncode == 1
    assert server.run(shared_vm.id, "sh", "-c", "cat /mnt/file; ls -A /mnt; umount /mnt")[1] == b"oldfile\n"


def test_a_file_is_written_described_listed_moved_and_removed(server: Server, shared_vm: vm_pb2.Vm) -> None:
    vm = shared_vm.name
    ingle(server, "vm", "file", "mkdir", "-p", vm, "/srv/a/b")
    ingle(server, "vm", "file", "write", "--mode", "640", "--owner", "daemon", vm, "/srv/a/b/f", stdin=b"one\ntwo\n")
    assert server.run(shared_vm.id, "stat", "-c", "%a %U %s", "/srv/a/b/f")[1] == b"640 daemon 8\n"
    assert ingle(server, "vm", "file", "cat", "--lines", "1", vm, "/srv/a/b/f") == b"one\n"
    ingle(server, "vm", "file", "mv", vm, "/srv/a/b/f", "/srv/a/g")
    assert b" g\n" in ingle(server, "vm", "file", "ls", vm, "/srv/a")
    ingle(server, "vm", "file", "rm", "-r", vm, "/srv/a")
    assert server.run(shared_vm.id, "ls", "/srv")[1] == b""


def test_a_tree_with_bin_goes_onto_a_guest_whose_bin_is_a_link(
    server: Server, shared_vm: vm_pb2.Vm, tmp_path: Path
) -> None:
    (tmp_path / "tree" / "bin").mkdir(parents=True)
    (tmp_path / "tree" / "bin" / "of-ours").write_text("x")
    ingle(server, "vm", "cp", f"{tmp_path}/tree/.", f"{shared_vm.name}:/")
    told = server.run(shared_vm.id, "sh", "-c", "readlink /bin; cat /usr/bin/of-ours; rm /usr/bin/of-ours")[1]
    assert told == b"usr/bin\nx"


def test_what_the_guests_kernel_says_is_copied(server: Server, shared_vm: vm_pb2.Vm, tmp_path: Path) -> None:
    for path in ("/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"):
        ingle(server, "vm", "cp", f"{shared_vm.name}:{path}", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == server.run(shared_vm.id, "cat", path)[1]

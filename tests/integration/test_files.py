"""`vm cp` and `vm file` against a real guest."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from harness import Server
from ingle.v1 import vm_pb2

_FILES = 3000


def ingle(server: Server, *arguments: str | Path, stdin: bytes = b"") -> bytes:
    environment = {**server.env, "INGLE_SOCKET": str(server.socket)}
    ended = subprocess.run(
        [sys.executable, "-m", "ingle.cli", *arguments], env=environment, input=stdin, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout


def tree_of(top: Path) -> Path:
    for number in range(_FILES):
        path = top / f"{number % 50}" / f"file {number} ü"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number % 700))
        path.chmod((0o644, 0o755, 0o600, 0o444)[number % 4])
    (top / "large").write_bytes(os.urandom(3_000_000))
    (top / "soft").symlink_to("0")
    (top / "dangling").symlink_to("/no/where")
    (top / "hard").hardlink_to(top / "large")
    (top / "0").chmod(0o550)
    return top


def facts(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in [top, *top.rglob("*")]:
        stat = path.lstat()
        content = path.readlink() if path.is_symlink() else None
        if content is None and path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()  # type: ignore[assignment]
        found[str(path.relative_to(top))] = (stat.st_mode, int(stat.st_mtime), content, path.is_dir() or stat.st_nlink)
    return found


def test_a_tree_of_thousands_makes_the_round_trip_unchanged(
    server: Server, shared_vm: vm_pb2.Vm, tmp_path: Path
) -> None:
    tree, back = tree_of(tmp_path / "tree"), tmp_path / "back"
    ingle(server, "vm", "cp", tree, f"{shared_vm.name}:/root")
    count = server.run(shared_vm.id, "sh", "-c", "find /root/tree -type f | wc -l; readlink /root/tree/soft")[1]
    assert count == b"%d\n0\n" % (_FILES + 2)
    ingle(server, "vm", "cp", f"{shared_vm.name}:/root/tree", back)
    assert facts(back) == facts(tree)


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

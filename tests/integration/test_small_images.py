"""Guests with hardly anything in them: busybox alone, as Alpine has it, and one static program alone, as distroless
images have it. No Python, no bash, no libc."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from harness import Server, refused
from ingle.v1 import guest_pb2, vm_pb2

from .agent_of import ask_agent
from .small_images import BUSYBOX, busybox_tree, registered

DETACH = "\x10\x11"

Ended = subprocess.CompletedProcess[bytes]


@contextmanager
def created(server: Server, name: str, tree: Path) -> Iterator[vm_pb2.Vm]:
    with registered(server, name, tree) as image:
        vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(image=image, memory_bytes=2**27))).vm
        try:
            yield vm
        finally:
            server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


@pytest.fixture(scope="module")
def alpine(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[vm_pb2.Vm]:
    with created(server, "busybox", busybox_tree(tmp_path_factory.mktemp("busybox"))) as vm:
        yield vm


@pytest.fixture(scope="module")
def distroless(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[vm_pb2.Vm]:
    tree = tmp_path_factory.mktemp("distroless")
    shutil.copy(BUSYBOX, tree / "cat")  # which is cat, by that name, and nothing else
    with created(server, "distroless", tree) as vm:
        yield vm


def environment(server: Server) -> dict[str, str]:
    return {**server.env, "INGLE_SOCKET": str(server.socket), "TERM": "xterm"}


def ingle(
    server: Server, *arguments: str | Path, stdin: bytes = b"", code: int = 0
) -> "subprocess.CompletedProcess[bytes]":
    ended = subprocess.run(
        [sys.executable, "-m", "ingle.cli", "vm", *arguments],
        env=environment(server),
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended


@contextmanager
def terminal(server: Server, *arguments: str) -> Iterator["pexpect.spawn[str]"]:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "ingle.cli", "vm", *arguments],
        env=environment(server),
        encoding="utf-8",
        timeout=60,
        dimensions=(24, 100),
    )
    try:
        yield child
    finally:
        child.close(force=True)


def test_commands_users_and_exit_codes(server: Server, alpine: vm_pb2.Vm) -> None:
    script = "echo $GREETING; pwd; id -un; id -G; echo $HOME $SHELL"
    code, out, err = server.run(alpine.id, "sh", "-c", script, env={"GREETING": "hello you"}, user="ember")
    assert (code, err) == (0, b"")
    assert out.decode().splitlines() == ["hello you", "/home/ember", "ember", "1000 44", "/home/ember /bin/sh"]
    assert server.run(alpine.id, "id", "-u", user="12345")[1] == b"12345\n"
    for wanted in (0, 1, 42, 255):
        assert server.run(alpine.id, "sh", "-c", f"exit {wanted}")[0] == wanted
    assert server.run(alpine.id, "sh", "-c", "kill -9 $$")[0] == 137
    assert refused(server.run, alpine.id, "bash").reason == "COMMAND_NOT_FOUND"
    assert refused(server.run, alpine.id, "true", user="nobody").reason == "GUEST_USER_NOT_FOUND"


def test_bytes_go_both_ways_unharmed(server: Server, alpine: vm_pb2.Vm) -> None:
    data = os.urandom(1_000_000)
    assert server.run(alpine.id, "cat", stdin=data) == (0, data, b"")


def test_a_shell_is_resized_left_and_found_again_until_it_is_killed(server: Server, alpine: vm_pb2.Vm) -> None:
    with terminal(server, "shell", alpine.name) as child:
        child.sendline("kept=value; echo in-$(hostname)-$(whoami); stty size")
        child.expect_exact(f"in-{alpine.name}-root")
        child.expect_exact("24 100")
        child.setwinsize(40, 120)
        child.sendline("stty size")
        child.expect_exact("40 120")
        child.send(DETACH)
        child.expect_exact(f"ingle vm shell {alpine.name}")
        child.expect(pexpect.EOF)
    with terminal(server, "shell", alpine.name) as child:
        child.expect_exact("40 120")  # what was said before
        child.sendline("echo $kept-$((6 * 7))")
        child.expect_exact("value-42")
        ingle(server, "session", "kill", alpine.name, "init")
        child.expect(pexpect.EOF)
    assert not server.guest.ListSessions(guest_pb2.ListSessionsRequest(vm=alpine.id)).sessions


def test_files_one_by_one(server: Server, alpine: vm_pb2.Vm) -> None:
    vm = alpine.name
    ingle(server, "file", "mkdir", "-p", vm, "/srv/a/b")
    ingle(server, "file", "write", "--mode", "640", "--owner", "ember", vm, "/srv/a/b/f", stdin=b"one\ntwo\n")
    assert server.run(alpine.id, "stat", "-c", "%a %U %s", "/srv/a/b/f")[1] == b"640 ember 8\n"
    assert b"mode      0640\n" in ingle(server, "file", "stat", vm, "/srv/a/b/f").stdout
    assert ingle(server, "file", "cat", vm, "/srv/a/b/f").stdout == b"one\ntwo\n"
    assert b" f\n" in ingle(server, "file", "ls", vm, "/srv/a/b").stdout
    ingle(server, "file", "rm", "-r", vm, "/srv/a")
    assert server.run(alpine.id, "ls", "/srv")[1] == b""


def test_a_tree_goes_in_and_comes_back_as_it_was(server: Server, alpine: vm_pb2.Vm, tmp_path: Path) -> None:
    tree, back = tmp_path / "tree", tmp_path / "back"
    (tree / "sub").mkdir(parents=True)
    for mode in (0o600, 0o755, 0o444):
        (tree / "sub" / f"ü {mode:o}").write_bytes(os.urandom(mode))
        (tree / "sub" / f"ü {mode:o}").chmod(mode)
    (tree / "soft").symlink_to("sub/ü 600")
    (tree / "dangling").symlink_to("/no/where")
    (tree / "hard").hardlink_to(tree / "sub" / "ü 755")
    ingle(server, "cp", tree, f"{alpine.name}:/root")
    assert server.run(alpine.id, "sh", "-c", "cd /root/tree; ls -1; readlink soft; stat -c %h hard")[1].decode() == (
        "dangling\nhard\nsoft\nsub\nsub/ü 600\n2\n"
    )
    ingle(server, "cp", f"{alpine.name}:/root/tree", back)
    assert facts(back) == facts(tree)


def facts(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in [top, *top.rglob("*")]:
        info = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        links = info.st_nlink if path.is_file() else 0
        found[str(path.relative_to(top))] = (info.st_mode, info.st_mtime_ns // 10**9, content, links)
    return found


def test_sync_stats_and_a_stop_that_keeps_what_was_written(server: Server, alpine: vm_pb2.Vm) -> None:
    stats = server.vms.GetVmStats(vm_pb2.GetVmStatsRequest(vm=alpine.id)).guest
    assert 0 < stats.memory_available_bytes < stats.memory_total_bytes < 2**27
    assert 0 < stats.disk_available_bytes < stats.disk_total_bytes
    server.run(alpine.id, "sh", "-c", "echo kept > /root/file")
    ask_agent(server, alpine, lambda agent: agent.sync())
    assert server.vms.StopVm(vm_pb2.StopVmRequest(vm=alpine.id)).vm.state == vm_pb2.VM_STATE_STOPPED
    server.vms.StartVm(vm_pb2.StartVmRequest(vm=alpine.id))
    assert server.run(alpine.id, "cat", "/root/file")[1] == b"kept\n"


def test_a_program_alone_runs(server: Server, distroless: vm_pb2.Vm) -> None:
    data = os.urandom(100_000)
    assert server.run(distroless.id, "/cat", stdin=data) == (0, data, b"")
    assert server.run(distroless.id, "/cat", "/no/such/file")[0] == 1
    status = server.run(distroless.id, "/cat", "/proc/self/status", user="12345")[1]
    assert b"\nUid:\t12345\t12345\t12345\t12345\n" in status
    assert b" " + distroless.name.encode() + b" # ingle\n" in server.run(distroless.id, "/cat", "/etc/hosts")[1]


def test_what_it_has_not_got_is_told(server: Server, distroless: vm_pb2.Vm) -> None:
    with terminal(server, "shell", distroless.name) as child:
        child.expect_exact("/bin/sh")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 127
    assert refused(server.run, distroless.id, "sh", "-c", "true").reason == "COMMAND_NOT_FOUND"
    assert not server.guest.ListSessions(guest_pb2.ListSessionsRequest(vm=distroless.id)).sessions


def test_files_go_in_and_out_of_it(server: Server, distroless: vm_pb2.Vm, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(1000))
    ingle(server, "cp", tmp_path / "file", f"{distroless.name}:/data")
    ingle(server, "cp", f"{distroless.name}:/data", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()
    assert b" cat\n" in ingle(server, "file", "ls", distroless.name, "/").stdout

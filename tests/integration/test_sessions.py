"""Terminals in a real guest, through the command line on a real pseudo-terminal."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from harness import NewServer, Server, refused
from ingle.v1 import guest_pb2, signal_pb2, vm_pb2

DETACH = "\x10\x11"

DRAW = r"printf '\033[?1049h\033[2J\033[10;20H\033[7mfull''screen\033[0m'; sleep 0.1; printf '\033[?1049l'"


@contextmanager
def ingle(server: Server, *arguments: str) -> Iterator["pexpect.spawn[str]"]:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "ingle.cli", "vm", *arguments],
        env={**os.environ, "INGLE_SOCKET": str(server.socket), "TERM": "xterm"},
        encoding="utf-8",
        timeout=60,
        dimensions=(24, 100),
    )
    try:
        yield child
    finally:
        child.close(force=True)


@pytest.fixture
def guest(server: Server, shared_vm: vm_pb2.Vm) -> Iterator[vm_pb2.Vm]:
    """A VM without sessions, before and after."""
    yield shared_vm
    for session in sessions(server, shared_vm):
        server.guest.KillSession(guest_pb2.KillSessionRequest(vm=shared_vm.id, session_id=session.id))


def sessions(server: Server, vm: vm_pb2.Vm) -> list[guest_pb2.Session]:
    return list(server.guest.ListSessions(guest_pb2.ListSessionsRequest(vm=vm.id)).sessions)


def until_detached(server: Server, vm: vm_pb2.Vm) -> None:
    deadline = time.monotonic() + 60
    while any(session.attached for session in sessions(server, vm)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_shell_draws_resizes_is_left_survives_a_killed_client_and_comes_back(
    server: Server, guest: vm_pb2.Vm
) -> None:
    with ingle(server, "shell", guest.name) as child:
        child.sendline("kept=value; echo in-$(hostname)-$(whoami)-$(tty); stty size")
        child.expect_exact(f"in-{guest.name}-root-/dev/pts/")
        child.expect_exact("24 100")
        child.sendline(DRAW)
        child.expect_exact("\x1b[10;20H\x1b[7mfullscreen\x1b[0m")
        child.expect_exact("\x1b[?1049l")
        child.setwinsize(40, 120)
        child.sendline("stty size")
        child.expect_exact("40 120")
        child.send(DETACH)
        child.expect_exact(f"ingle vm shell {guest.name}")
        child.expect(pexpect.EOF)
    with ingle(server, "shell", guest.name) as child:
        child.expect_exact("40 120")  # what was said before
        child.sendline("echo $kept-$((6 * 7))")
        child.expect_exact("value-42")
        child.kill(signal.SIGKILL)
    until_detached(server, guest)
    with ingle(server, "shell", guest.name) as child:
        child.expect_exact("value-42")
        child.sendline("echo $kept-$((7 * 7)); exit 9")
        child.expect_exact("value-49")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 9
    assert sessions(server, guest) == []


def test_an_editor_draws_on_the_whole_screen_and_on_another_size_of_it(server: Server, guest: vm_pb2.Vm) -> None:
    with ingle(server, "cp", "/bin/busybox", f"{guest.name}:/root/busybox") as child:
        child.expect(pexpect.EOF)
    with ingle(server, "exec", "-t", guest.name, "--", "./busybox", "vi", "note") as child:
        child.expect_exact("\x1b[?1049h")  # the other screen
        child.expect_exact("\x1b[24;1H")  # the status line is the last
        child.setwinsize(40, 120)
        child.expect_exact("\x1b[40;1H\x1b[K- note")
        child.send("i")
        child.expect_exact("I note")
        child.send("hello")
        child.expect_exact("hello")
        child.send("\x03")  # the guest's, not ours: vi leaves insertion with it, and goes on
        child.expect_exact("- note")
        child.send(":wq\r")
        child.expect_exact("\x1b[?1049l")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 0
    assert server.run(guest.id, "cat", "/root/note") == (0, b"hello\n", b"")


def test_our_terminal_is_as_it_was_when_the_vm_or_the_server_goes(new_server: NewServer, tmp_path: Path) -> None:
    server = new_server()
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name="web"))).vm
    before, after = tmp_path / "before", tmp_path / "after"
    script = f"stty -g >{before}; {sys.executable} -m ingle.cli vm shell web; echo code-$?; stty -g >{after}"
    ways = (
        (lambda: server.vms.KillVm(vm_pb2.KillVmRequest(vm="web")), "VM 'web' was stopped in the middle of it"),
        (lambda: server.vms.StopVm(vm_pb2.StopVmRequest(vm="web")), "VM 'web' was stopped in the middle of it"),
        (server.kill, "remedy: ingle vm shell web"),
    )
    for end, told in ways:
        server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id))
        environment = {**os.environ, "INGLE_SOCKET": str(server.socket), "TERM": "xterm"}
        child = pexpect.spawn("sh", ["-c", script], env=environment, encoding="utf-8", timeout=60)
        try:
            child.expect_exact("root@web:~# ")
            end()
            child.expect_exact(told)
            child.expect(pexpect.EOF)
        finally:
            child.close(force=True)
        assert before.read_text() == after.read_text()
    server.start()


def test_run_without_a_command_is_a_shell_in_a_vm_that_stays(server: Server) -> None:
    with ingle(server, "run", "--name", "bare-shell", "-e", "COLOUR=green") as child:
        child.expect_exact("root@bare-shell:~# ")
        child.sendline("echo in-$COLOUR; exit 7")
        child.expect_exact("in-green")
        child.expect_exact("bare-shell is running")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 7
    assert server.vms.GetVm(vm_pb2.GetVmRequest(vm="bare-shell")).vm.state == vm_pb2.VM_STATE_RUNNING
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm="bare-shell", force=True))


@pytest.mark.parametrize("way_out", ["exit", "SIGHUP", "SIGKILL"])
def test_run_rm_without_a_command_is_a_shell_whose_vm_goes_with_it(server: Server, way_out: str) -> None:
    with ingle(server, "run", "--rm", "--name", "gone-shell") as child:
        child.expect_exact("root@gone-shell:~# ")
        if way_out == "exit":
            child.sendline("exit 7")
            child.expect(pexpect.EOF)
            child.wait()
            assert child.exitstatus == 7
            assert refused(server.vms.GetVm, vm_pb2.GetVmRequest(vm="gone-shell")).reason == "VM_NOT_FOUND"
        else:
            child.kill(getattr(signal, way_out))
    deadline = time.monotonic() + 60
    while "gone-shell" in [vm.name for vm in server.list()]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_ordinary_user_has_a_terminal_of_their_own(server: Server, guest: vm_pb2.Vm) -> None:
    script = 'test "$(stat -c %U $(tty))" = daemon && echo mine >$(tty) && id -un </dev/tty'
    with ingle(server, "exec", "-t", "-u", "daemon", guest.name, "--", "sh", "-c", script) as child:
        child.expect_exact("mine\r\ndaemon\r\n")
        child.expect(pexpect.EOF)


def test_the_service_keeps_the_rules(server: Server, guest: vm_pb2.Vm) -> None:
    program = guest_pb2.SessionProgram(argv=["cat"])
    create = guest_pb2.CreateSessionRequest(vm=guest.id, session_id="mine", program=program)
    created = server.guest.CreateSession(create).session
    assert (created.id, list(created.argv), created.attached) == ("mine", ["cat"], False)
    assert abs(time.time() - created.started_at.seconds) < 3600
    assert refused(server.guest.CreateSession, create).reason == "NAME_TAKEN"
    size = guest_pb2.TerminalSize(rows=30, columns=90)
    server.guest.ResizeSession(guest_pb2.ResizeSessionRequest(vm=guest.id, session_id="mine", size=size))
    assert sessions(server, guest)[0].size == size
    start = guest_pb2.AttachSessionStart(vm=guest.id, session_id="mine")
    begin = guest_pb2.AttachSessionRequest(start=start)
    attachment = server.guest.AttachSession(iter([begin, guest_pb2.AttachSessionRequest(input=b"typed\n")]))
    said = b""
    assert next(attachment).attached.attached
    while said != b"typed\r\ntyped\r\n":
        said += next(attachment).output
    assert refused(list, server.guest.AttachSession(iter([begin]))).reason == "SESSION_ATTACHED"
    server.guest.KillSession(guest_pb2.KillSessionRequest(vm=guest.id, session_id="mine"))
    assert [event.exited.signal for event in attachment] == [signal_pb2.SIGNAL_HUP]
    for bad in (
        guest_pb2.AttachSessionRequest(),
        guest_pb2.AttachSessionRequest(start=guest_pb2.AttachSessionStart(vm=guest.id)),
    ):
        assert refused(list, server.guest.AttachSession(iter([bad]))).reason == "INVALID_ARGUMENT"
    assert refused(list, server.guest.AttachSession(iter([begin]))).reason == "SESSION_NOT_FOUND"
    create_here = guest_pb2.AttachSessionStart(vm=guest.id, session_id="other", create=program)
    for words in (guest_pb2.AttachSessionRequest(), guest_pb2.AttachSessionRequest(resize=guest_pb2.TerminalSize())):
        broken = server.guest.AttachSession(iter([guest_pb2.AttachSessionRequest(start=create_here), words]))
        assert refused(list, broken).reason == "INVALID_ARGUMENT"
        until_detached(server, guest)

"""Commands in real guests, through gRPC."""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from harness import Server, refused
from ingle.v1 import guest_pb2, signal_pb2, vm_pb2


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_codes_come_through(server: Server, shared_vm: vm_pb2.Vm, code: int) -> None:
    assert server.run(shared_vm.id, "sh", "-c", f"exit {code}") == (code, b"", b"")


def test_stdout_and_stderr_stay_apart(server: Server, shared_vm: vm_pb2.Vm) -> None:
    assert server.run(shared_vm.id, "sh", "-c", "echo out; echo err >&2") == (0, b"out\n", b"err\n")


def test_binary_data_goes_both_ways_unharmed(server: Server, shared_vm: vm_pb2.Vm) -> None:
    data = os.urandom(5_000_000)
    code, out, err = server.run(shared_vm.id, "cat", stdin=data)
    assert (code, err) == (0, b"")
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_a_command_without_stdin_sees_the_end_of_it_at_once(server: Server, shared_vm: vm_pb2.Vm) -> None:
    assert server.run(shared_vm.id, "cat") == (0, b"", b"")


def test_argv_is_never_a_shell_line(server: Server, shared_vm: vm_pb2.Vm) -> None:
    argument = "a b;$HOME `id` 'q' \"d\" \\ ü\n"
    assert server.run(shared_vm.id, "printf", "%s", argument)[1] == argument.encode()


def test_environment_directory_and_user(server: Server, shared_vm: vm_pb2.Vm) -> None:
    fields: dict[str, Any] = {"env": {"GREETING": "hello you"}, "working_directory": "/tmp", "user": "daemon"}
    code, out, _ = server.run(shared_vm.id, "sh", "-c", "echo $GREETING; pwd; id -un; echo $HOME", **fields)
    assert (code, out.decode().splitlines()) == (0, ["hello you", "/tmp", "daemon", "/usr/sbin"])
    assert server.run(shared_vm.id, "id", "-u", user="12345")[1] == b"12345\n"


def test_what_can_not_be_started_says_why(server: Server, shared_vm: vm_pb2.Vm) -> None:
    assert refused(server.run, shared_vm.id, "no-such-command").reason == "COMMAND_NOT_FOUND"
    assert refused(server.run, shared_vm.id, "/no/such/command").reason == "COMMAND_NOT_FOUND"
    assert refused(server.run, shared_vm.id, "/etc/passwd").reason == "COMMAND_NOT_EXECUTABLE"
    assert refused(server.run, shared_vm.id, "true", user="nobody-here").reason == "GUEST_USER_NOT_FOUND"
    assert (
        refused(server.run, shared_vm.id, "true", working_directory="/no/where").reason == "GUEST_DIRECTORY_NOT_FOUND"
    )


@pytest.mark.parametrize(
    ("argv", "fields", "words"),
    [
        ((), {}, "argv is empty"),
        (("",), {}, "argv is empty"),
        (("a\0b",), {}, "NUL"),
        (("true",), {"env": {"A B": ""}}, "A B"),
        (("true",), {"timeout": Duration(seconds=-1)}, "timeout -1"),
        (("true",), {"timeout": Duration()}, "timeout 0"),
    ],
)
def test_a_bad_request_is_refused(
    server: Server, shared_vm: vm_pb2.Vm, argv: tuple[str, ...], fields: dict[str, object], words: str
) -> None:
    error = refused(server.run, shared_vm.id, *argv, **fields)
    assert error.reason == "INVALID_ARGUMENT"
    assert words in error.message


def test_a_timeout_kills_the_whole_process_group(server: Server, shared_vm: vm_pb2.Vm) -> None:
    start = guest_pb2.ExecStart(
        vm=shared_vm.id, argv=["sh", "-c", "sleep 4711 & sleep 4711"], timeout=Duration(nanos=500_000_000)
    )
    *_, last = server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))
    assert last.exited.timed_out
    assert last.exited.signal in (9, 15)
    assert no_process(server, shared_vm, "sleep 4711")


def test_a_caller_that_vanishes_kills_the_whole_process_group(server: Server, shared_vm: vm_pb2.Vm) -> None:
    start = guest_pb2.ExecStart(vm=shared_vm.id, argv=["sh", "-c", "sleep 4712 & echo up; sleep 4712"])
    call = server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))
    for response in call:
        if response.stdout_data:
            break
    call.cancel()
    assert no_process(server, shared_vm, "sleep 4712")


def no_process(server: Server, vm: vm_pb2.Vm, command: str) -> bool:
    """Whether soon no process with this command line is there; [x]pattern so that the search misses itself."""
    script = f"! pgrep -f '[{command[0]}]{command[1:]}'"
    for _ in range(50):
        if server.run(vm.id, "sh", "-c", script)[0] == 0:
            return True
        time.sleep(0.1)
    return False


def test_signals_reach_the_command(server: Server, shared_vm: vm_pb2.Vm) -> None:
    script = "trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.05; done"

    def requests() -> Iterator[guest_pb2.ExecRequest]:
        yield guest_pb2.ExecRequest(start=guest_pb2.ExecStart(vm=shared_vm.id, argv=["sh", "-c", script]))
        while b"ready" not in seen:
            time.sleep(0.01)
        yield guest_pb2.ExecRequest(signal=guest_pb2.ExecSignal(signal=signal_pb2.SIGNAL_USR1))
        while not done:
            time.sleep(0.01)

    seen, done = bytearray(), []
    for response in server.guest.Exec(requests()):
        seen += response.stdout_data
        if response.HasField("exited"):
            done.append(response.exited.exit_code)
    assert bytes(seen) == b"ready\ncaught\n"
    assert done == [7]


def test_a_command_killed_by_a_signal_says_which(server: Server, shared_vm: vm_pb2.Vm) -> None:
    assert server.run(shared_vm.id, "sh", "-c", "kill -9 $$")[0] == 137


def test_a_timeout_holds_though_the_whole_guest_is_frozen(server: Server, shared_vm: vm_pb2.Vm) -> None:
    start = guest_pb2.ExecStart(vm=shared_vm.id, argv=["sh", "-c", "echo up; sleep 4715"])
    start.timeout.FromSeconds(3)
    responses = server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))
    try:
        while next(responses).stdout_data != b"up\n":
            pass
        os.kill(shared_vm.pid, signal.SIGSTOP)
        another = server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))
        assert [refused(list, call).reason for call in (responses, another)] == ["COMMAND_TIMED_OUT"] * 2
    finally:
        os.kill(shared_vm.pid, signal.SIGCONT)
    assert no_process(server, shared_vm, "sleep 4715")


def test_a_rule_broken_in_the_middle_ends_the_command(server: Server, shared_vm: vm_pb2.Vm) -> None:
    start = guest_pb2.ExecStart(vm=shared_vm.id, argv=["sleep", "4713"], open_stdin=True)
    unknown = guest_pb2.ExecSignal(signal=99)  # type: ignore[arg-type] # nobody's
    requests = [guest_pb2.ExecRequest(start=start), guest_pb2.ExecRequest(signal=unknown)]
    assert "signal 99" in refused(list, server.guest.Exec(iter(requests))).message
    assert no_process(server, shared_vm, "sleep 4713")


def test_input_over_the_message_limit_ends_the_command_too(server: Server, shared_vm: vm_pb2.Vm) -> None:
    """The caller keeps its side open: nothing but the command's end can end the call."""
    start = guest_pb2.ExecStart(vm=shared_vm.id, argv=["sleep", "4714"], open_stdin=True)
    ended = threading.Event()

    def requests() -> Iterator[guest_pb2.ExecRequest]:
        yield guest_pb2.ExecRequest(start=start)
        yield guest_pb2.ExecRequest(stdin_data=bytes(5 * 2**20))
        ended.wait()

    try:
        assert refused(list, server.guest.Exec(requests(), timeout=30)).reason == "MESSAGE_TOO_LARGE"
    finally:
        ended.set()
    assert no_process(server, shared_vm, "sleep 4714")


def test_arguments_beyond_what_the_agent_takes_are_refused(server: Server, shared_vm: vm_pb2.Vm) -> None:
    error = refused(server.run, shared_vm.id, "echo", *["y" * 100_000] * 20)
    assert error.reason == "INVALID_ARGUMENT"
    assert "1048576" in error.message


def test_a_vm_can_be_deleted_with_its_last_command_even_if_the_caller_vanishes(server: Server) -> None:
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    start = guest_pb2.ExecStart(vm=vm.id, argv=["sh", "-c", "echo up; sleep 1000"], delete_vm=True)
    call = server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))
    next(iter(call))
    call.cancel()
    deadline = time.monotonic() + 20
    while any(item.id == vm.id for item in server.list()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_agents_token_is_needed_and_gone_from_the_guest(server: Server, shared_vm: vm_pb2.Vm) -> None:
    script = "ls -A /ingle* 2>/dev/null; grep -rlsa 'ingle-agent' /proc/1/root/init 2>/dev/null; cat /proc/1/environ"
    out = server.run(shared_vm.id, "sh", "-c", script)[1]
    assert b"token" not in out.lower()
    assert server.run(shared_vm.id, "test", "-e", "/ingle/boot.binpb")[0] == 1

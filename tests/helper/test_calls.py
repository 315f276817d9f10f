"""What every call of the helper has in common: who may call, op_ids, the audit line, errors."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from harness import refused
from helper.process import UID, Helper, vm
from ingle.helper.v1 import helper_pb2 as pb

OP_ID = "op-0123456789ab"

CALL_AS = """
import grpc, os, sys
from ingle.helper.v1 import helper_pb2, helper_pb2_grpc
def call(path):
    try:
        with grpc.insecure_channel("unix:" + path) as channel:
            return helper_pb2_grpc.HelperServiceStub(channel).Ping(helper_pb2.PingRequest(), timeout=10).part
    except grpc.RpcError as error:
        return error.code().name
call("/nonexistent")  # loads what grpc loads when it is used: the user below may not be let into this checkout
uid = int(sys.argv[2])
os.setgroups([]); os.setgid(uid); os.setuid(uid)
print(call(sys.argv[1]))
"""


def call_as(helper: Helper, uid: int, packages: str = "") -> str:
    """What a call by that user comes to. `packages`: a directory that is searched first."""
    argv = [sys.executable, "-c", CALL_AS, str(helper.socket), str(uid)]
    environment = {**os.environ, "PYTHONPATH": packages}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_ping_says_what_is_served(helper: Helper) -> None:
    assert helper.stub.Ping(pb.PingRequest()).part == pb.PART_NETWORK


def test_the_api_servers_user_may_call_and_another_may_not(helper: Helper) -> None:
    assert stat.S_IMODE(helper.socket.stat().st_mode) == 0o660
    assert (helper.socket.stat().st_uid, helper.socket.stat().st_gid) == (0, UID)
    assert call_as(helper, UID) == str(pb.PART_NETWORK)
    assert call_as(helper, UID + 1) == "UNAVAILABLE"
    assert "connection refused" not in helper.said(), "the socket's mode came first"


def test_a_checkout_that_others_may_not_enter_is_no_obstacle_to_these_tests(helper: Helper, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    assert grpc.__file__ is not None
    shutil.copytree(Path(grpc.__file__).parent, private / "grpc", ignore=shutil.ignore_patterns("__pycache__"))
    assert call_as(helper, UID, str(private)) == str(pb.PART_NETWORK)


def test_another_user_is_refused_at_the_gate_even_where_modes_would_let_it_in(helper: Helper) -> None:
    helper.socket.chmod(0o666)
    try:
        assert call_as(helper, UID + 1) == "UNAVAILABLE"
    finally:
        helper.socket.chmod(0o660)
    assert f'"connection refused", "uid": {UID + 1}' in helper.said()


def test_the_private_socket_refuses_calls_that_did_not_come_through_the_gate(helper: Helper) -> None:
    private = helper.runtime / "private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    with grpc.insecure_channel(f"unix:{private}/grpc.sock") as channel:
        error = refused(channel.unary_unary("/ingle.helper.v1.HelperService/Ping"), b"")
    assert error.code is grpc.StatusCode.PERMISSION_DENIED
    assert error.reason == "PEER_REFUSED"


def test_the_callers_op_id_is_in_the_answer_the_error_and_the_audit(helper: Helper) -> None:
    metadata = (("ingle-op-id", OP_ID),)
    _, call = helper.stub.Ping.with_call(pb.PingRequest(), metadata=metadata)
    assert dict(call.trailing_metadata())["ingle-op-id"] == OP_ID
    error = refused(helper.stub.CreateTap, pb.CreateTapRequest(vm_id="nonsense", slot=2), metadata=metadata)
    assert error.op_id == OP_ID
    assert error.reason == "INVALID_ARGUMENT"
    assert [line["op_id"] for line in helper.audit()] == [OP_ID, OP_ID]


def test_what_is_no_op_id_is_replaced(helper: Helper) -> None:
    _, call = helper.stub.Ping.with_call(pb.PingRequest(), metadata=(("ingle-op-id", "op-\\n{}"),))
    assert dict(call.trailing_metadata())["ingle-op-id"].startswith("op-")
    assert dict(call.trailing_metadata())["ingle-op-id"] != "op-\\n{}"


def test_every_call_is_audited_with_who_what_and_how_it_ended(helper: Helper) -> None:
    helper.stub.EnsureNetwork(pb.EnsureNetworkRequest(network=3))
    refused(helper.stub.SetNat, pb.SetNatRequest(vm_id=vm(1), slot=770, enabled=True))
    done, failed = helper.audit()
    assert (done["verb"], done["uid"], done["pid"], done["result"]) == ("EnsureNetwork", 0, os.getpid(), "ok")
    assert done["changes"] == ["EnsureNetwork(number=3, dns_port=0)"]
    assert (failed["verb"], failed["result"]) == ("SetNat", "WRONG_STATE")
    assert "770" in failed["why"]


@pytest.mark.parametrize("path", ["/ingle.helper.v1.HelperService/Nope", "/ingle.v1.VmService/GetVm"])
def test_an_unknown_method_is_refused_like_everything_else(helper: Helper, path: str) -> None:
    error = refused(helper.channel.unary_unary(path), b"")
    assert error.code is grpc.StatusCode.UNIMPLEMENTED
    assert error.reason == "UNKNOWN_METHOD"


VM_ID = b"\x0a\x0c" + vm(1).encode()
HOSTILE = {
    "not a message": b"\xff" * 100,
    "cut off": VM_ID[:-3],
    "longer than it says": b"\x0a\xff\xff\xff\xff\x0f" + vm(1).encode(),
    "an id that is no UTF-8": b"\x0a\x0c" + b"\xff" * 12 + b"\x10\x02",
    "an id of half a megabyte": b"\x0a\xa0\xc2\x1e" + b"0" * 500_000 + b"\x10\x02",
    "a negative slot": VM_ID + b"\x10" + b"\xfe" + b"\xff" * 8 + b"\x01",
    "a slot of another type": VM_ID + b"\x12\x01\x02",
    "more than a megabyte": VM_ID + b"\x10\x02" + b"\x7a\x80\x80\x80\x01" + bytes(2 << 20),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_are_refused_and_change_nothing(helper: Helper, data: bytes) -> None:
    helper.stub.EnsureNetwork(pb.EnsureNetworkRequest(network=0))
    before = helper.stub.List(pb.ListRequest())
    call: Callable[..., bytes] = helper.channel.unary_unary("/ingle.helper.v1.HelperService/CreateTap")
    with pytest.raises(grpc.RpcError) as raised:
        call(data, timeout=30)
    assert raised.value.code() in {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
    assert helper.stub.List(pb.ListRequest()) == before


def test_garbage_and_silence_on_the_socket_hurt_nobody(helper: Helper) -> None:
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as garbage:
        silent.connect(str(helper.socket))
        garbage.connect(str(helper.socket))
        garbage.sendall(os.urandom(50_000))
        helper.stub.Ping(pb.PingRequest())


def test_more_connections_than_any_api_server_needs_are_turned_away(helper: Helper) -> None:
    helper.stub.Ping(pb.PingRequest())
    many = [socket.socket(socket.AF_UNIX) for _ in range(60)]
    for each in many:
        each.connect(str(helper.socket))
    turned_away = 0
    for each in many:
        try:
            turned_away += each.recv(1) == b""  # a server of HTTP/2 speaks first
        except ConnectionResetError:
            turned_away += 1
    for each in many:
        each.close()
    # Of the 32 that may be there one is ours, and one that an earlier call has left may not be gone yet.
    assert 60 - 31 <= turned_away <= 60 - 30
    helper.stub.Ping(pb.PingRequest())


def test_a_second_helper_is_refused_and_the_first_goes_on(helper: Helper) -> None:
    second = subprocess.run(helper.argv(), capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 75
    assert "another helper" in second.stderr
    helper.stub.Ping(pb.PingRequest())


def test_a_signal_to_end_never_interrupts_what_runs(helper: Helper) -> None:
    """One that came between two instructions of the thread that waits for it could deadlock with it."""
    assert helper.process is not None
    tasks = Path(f"/proc/{helper.process.pid}/task").iterdir()
    # The one that waits for these signals takes them, and no handler runs; nobody else does.
    others = [path / "status" for path in tasks if path.name != str(helper.process.pid)]
    assert others
    for status in others:
        assert {signal.SIGTERM, signal.SIGINT} <= blocked(status.read_text())


def blocked(status: str) -> set[int]:
    """Of /proc/PID/status, proc(5)."""
    (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk:"))
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def test_it_ends_cleanly_and_leaves_its_resources_to_the_next(own_helper: Helper) -> None:
    own_helper.tap(2)
    assert own_helper.stop() == 0
    assert not own_helper.socket.exists()
    assert {"ingb0", "ingt2"} <= own_helper.namespace.links()
    own_helper.start()
    (tap,) = own_helper.stub.List(pb.ListRequest()).taps
    assert tap.present

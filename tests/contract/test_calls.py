"""What every call has in common, through a real server on a unix socket: op_id, version, errors, the gate."""

import json
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness import Server, refused
from ingle.api_server.application import SERVICES
from ingle.v1 import guest_pb2, operation_pb2, system_pb2, vm_pb2

OP_ID = re.compile(r"op-[0-9a-f]{12}")


def test_every_answer_has_an_op_id_of_its_own(server: Server) -> None:
    seen = set()
    for _ in range(5):
        _, call = server.system.Ping.with_call(system_pb2.PingRequest())
        seen.add(str(dict(call.trailing_metadata())["ingle-op-id"]))
    assert len(seen) == 5
    assert all(OP_ID.fullmatch(op_id) for op_id in seen)


def test_an_error_says_what_why_what_to_type_and_the_op_id(server: Server) -> None:
    error = refused(server.vms.GetVm, vm_pb2.GetVmRequest(vm="nobody"))
    assert error.code is grpc.StatusCode.NOT_FOUND
    assert error.reason == "VM_NOT_FOUND"
    assert "nobody" in error.message
    assert error.remedy == "ingle vm list"
    assert OP_ID.fullmatch(error.op_id)


def test_the_op_id_is_on_every_line_of_the_log_about_a_call(server: Server) -> None:
    op_id = refused(server.vms.GetVm, vm_pb2.GetVmRequest(vm="logged")).op_id
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if op_id in line]
    assert lines
    assert all(line["op_id"] == op_id for line in lines)
    assert {"time", "level", "logger", "message"} <= set(lines[0])


@pytest.mark.parametrize("path", ["/ingle.v1.VmService/NoSuchMethod", "/ingle.v9.VmService/GetVm", "/other.Thing/Do"])
def test_an_unknown_method_is_refused_like_everything_else(server: Server, path: str) -> None:
    error = refused(server.channel.unary_unary(path), b"")
    assert error.code is grpc.StatusCode.UNIMPLEMENTED
    assert error.reason == "UNKNOWN_METHOD"
    assert path in error.message


@pytest.mark.parametrize(("version", "upgrade"), [("0", "client"), ("2", "server"), ("x", "client"), ("", "client")])
def test_another_contract_is_refused_and_told_which_side_to_upgrade(server: Server, version: str, upgrade: str) -> None:
    error = refused(server.vms.ListVms, vm_pb2.ListVmsRequest(), metadata=(("ingle-api-version", version),))
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.reason == "BAD_VERSION"
    assert error.remedy == f"upgrade the {upgrade}"


def test_another_contract_is_refused_on_streams_and_unknown_methods_too(server: Server) -> None:
    metadata = (("ingle-api-version", "99"),)
    stream = server.operations.WatchOperation(operation_pb2.WatchOperationRequest(), metadata=metadata)
    assert refused(list, stream).reason == "BAD_VERSION"
    unknown = refused(server.channel.unary_unary("/ingle.v1.VmService/Nope"), b"", metadata=metadata)
    assert unknown.reason == "BAD_VERSION"


def test_our_own_version_and_none_at_all_are_welcome(server: Server) -> None:
    server.vms.ListVms(vm_pb2.ListVmsRequest(), metadata=(("ingle-api-version", "1"),))
    server.vms.ListVms(vm_pb2.ListVmsRequest())


def test_a_request_that_is_no_message_is_refused_with_an_op_id(server: Server) -> None:
    error = refused(server.channel.unary_unary("/ingle.v1.VmService/GetVm"), b"\xff\xff\xff")
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_ARGUMENT"


def test_an_oversized_message_is_refused_with_an_op_id(server: Server) -> None:
    error = refused(server.vms.GetVm, vm_pb2.GetVmRequest(vm="x" * (5 * 1024 * 1024)))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.reason == "MESSAGE_TOO_LARGE"


def test_a_message_beyond_the_transport_limit_is_refused_and_the_server_lives(server: Server) -> None:
    with pytest.raises(grpc.RpcError) as raised:  # grpc's own refusal: it comes before anything of ours sees the call
        server.vms.GetVm(vm_pb2.GetVmRequest(vm="x" * (65 * 1024 * 1024)))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    server.system.Ping(system_pb2.PingRequest())


def test_a_stream_carries_the_error_model_as_well(server: Server) -> None:
    stream = server.operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id="op-none"))
    assert refused(list, stream).reason == "OPERATION_NOT_FOUND"
    exec_stream = server.guest.Exec(iter([guest_pb2.ExecRequest(stdin_data=b"x")]))
    assert refused(list, exec_stream).reason == "INVALID_ARGUMENT"
    assert refused(list, server.guest.Exec(iter([]))).reason == "INVALID_ARGUMENT"


BAD_SPECS = [
    (vm_pb2.VmSpec(vcpus=0), "vcpu 0"),
    (vm_pb2.VmSpec(vcpus=100_000), "vcpu 100000"),
    (vm_pb2.VmSpec(memory_bytes=0), "memory"),
    (vm_pb2.VmSpec(memory_bytes=63 * 2**20), "64 MiB"),
    (vm_pb2.VmSpec(memory_bytes=2**62), "memory"),
    (vm_pb2.VmSpec(disk_bytes=0), "disk size 0"),
    (vm_pb2.VmSpec(name="Not_A_Label"), "DNS label"),
    (vm_pb2.VmSpec(name="../../etc"), "DNS label"),
    (vm_pb2.VmSpec(name="a" * 64), "DNS label"),
    (vm_pb2.VmSpec(env={"BAD NAME": "x"}), "BAD NAME"),
    (vm_pb2.VmSpec(acceleration=77), "acceleration 77"),  # type: ignore[arg-type]
    (vm_pb2.VmSpec(disk_backend="floppy"), "floppy"),
    (vm_pb2.VmSpec(engine="steam"), "auto, firecracker, qemu"),
    (vm_pb2.VmSpec(init=7), "init 7"),  # type: ignore[arg-type]
    (vm_pb2.VmSpec(ssh_keys=["ssh-ed25519 AAAA"]), "ssh-ed25519 AAAA"),
    (vm_pb2.VmSpec(image="debian:bokworm"), "debian:bokworm"),
    (vm_pb2.VmSpec(kernel="no-such-kernel"), "no-such-kernel"),
]


@pytest.mark.parametrize(("spec", "words"), BAD_SPECS, ids=[words for _, words in BAD_SPECS])
def test_a_bad_wish_is_refused_before_anything_changes(server: Server, spec: vm_pb2.VmSpec, words: str) -> None:
    before = operation_ids(server)
    for call, request in (
        (server.vms.CreateVm, vm_pb2.CreateVmRequest(spec=spec)),
        (server.vms.BeginCreateVm, vm_pb2.BeginCreateVmRequest(spec=spec)),
    ):
        error = refused(call, request)
        assert words in error.message
        assert error.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert server.list() == []
    assert operation_ids(server) == before
    assert list((server.state / "vms").iterdir()) == []


def operation_ids(server: Server) -> list[str]:
    response = server.operations.ListOperations(operation_pb2.ListOperationsRequest())
    return [operation.id for operation in response.operations]


def test_health_answers_for_every_service_without_a_version(server: Server) -> None:
    health: Any = health_pb2_grpc.HealthStub(server.channel)
    for service in ("", *SERVICES):
        response = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_a_server_examines_its_host_and_says_where_its_settings_come_from(server: Server) -> None:
    told = server.system.Examine(system_pb2.ExamineRequest())
    by_name = {check.name: check for check in told.checks}
    database = by_name["database"]
    assert (database.status, database.detail.startswith("schema ")) == (system_pb2.CHECK_STATUS_PASS, True)
    assert all(bool(check.remedy) == (check.status != system_pb2.CHECK_STATUS_PASS) for check in told.checks)
    assert "network helper" not in by_name, "a user's own server has none"
    assert {"vcpus", "image"} <= {setting.name for setting in told.settings if setting.origin}


def test_info_tells_paths_limits_and_engines(server: Server) -> None:
    info = server.system.GetInfo(system_pb2.GetInfoRequest())
    assert info.state_directory == str(server.state)
    assert info.host_vcpus == len(os.sched_getaffinity(0))
    assert info.pid == server.process.pid if server.process else False
    assert [engine.name for engine in info.engines] == ["firecracker", "qemu"]
    firecracker, qemu = info.engines
    assert qemu.version[0].isdigit()
    assert bool(firecracker.version) != ("ingle engine install firecracker" in firecracker.problem)


# -- the gate


def test_the_sockets_are_private_from_birth(server: Server) -> None:
    private = server.state / "private"
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.state.stat().st_mode) == 0o700
    assert stat.S_IMODE((server.state / "api.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE((server.state / "ingle.db").stat().st_mode) == 0o600


def test_the_private_socket_refuses_calls_that_did_not_come_through_the_gate(server: Server) -> None:
    with grpc.insecure_channel(f"unix:{server.state}/private/{os.getuid()}.sock") as channel:
        for method in ("/ingle.v1.SystemService/Ping", "/nonsense"):
            error = refused(channel.unary_unary(method), b"")
            assert error.code is grpc.StatusCode.PERMISSION_DENIED
            assert error.reason == "PEER_REFUSED"


CONNECT_AS_NOBODY = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
os.setgid(65534); os.setuid(65534)
s.connect(sys.argv[1])
try:
    s.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes(9))
    print(len(s.recv(100)))
except (BrokenPipeError, ConnectionResetError):
    print("reset")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_uid_is_refused_at_the_gate_even_where_modes_would_let_it_in(server: Server, tmp_path: Path) -> None:
    modes = {
        path: path.stat().st_mode for path in (server.socket, server.socket.parent, server.root, server.root / "run")
    }
    try:
        for path in modes:
            path.chmod(0o777)
        done = subprocess.run(
            ["/usr/bin/env", "python3", "-c", CONNECT_AS_NOBODY, str(server.socket)],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    finally:
        for path, mode in modes.items():
            path.chmod(stat.S_IMODE(mode))
    assert done.stdout.strip() in ("0", "reset"), done.stderr
    assert '"connection refused", "uid": 65534' in server.log.read_text()


def test_garbage_and_silence_on_the_socket_hurt_nobody(server: Server) -> None:
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(str(server.socket))
    with socket.socket(socket.AF_UNIX) as garbage:
        garbage.connect(str(server.socket))
        garbage.sendall(os.urandom(100_000))
    server.system.Ping(system_pb2.PingRequest())
    silent.close()


# -- one server a socket, one a state directory


def test_a_second_server_is_refused_and_the_first_goes_on(server: Server) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "ingle.api_server", "serve"],
        env=server.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert second.returncode == 75
    assert "another ingle server" in second.stderr
    server.system.Ping(system_pb2.PingRequest())


def test_a_second_server_on_another_socket_can_not_have_the_same_state(server: Server, tmp_path: Path) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "ingle.api_server", "serve"],
        env={**server.env, "INGLE_SOCKET": str(tmp_path / "s")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert second.returncode == 75
    assert "state directory" in second.stderr

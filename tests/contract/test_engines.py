"""Several engines in one server: each VM is its own engine's for life, and one that nobody knows can be ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from harness import Server, no_process_left, nothing_left, refused, server_directory
from ingle.testing import made_up
from ingle.v1 import system_pb2, vm_pb2
from uploading import image_upload, kernel_upload


def with_engines(server: Server, *engines: str) -> Server:
    """What it will have when it is started next, beside the real one."""
    server.argv = [sys.executable, "-m", "ingle.testing.serve", ",".join(("qemu", *engines)), "serve"]
    return server


@pytest.fixture(scope="module")
def prepared() -> Iterator[Server]:
    with server_directory() as root:
        server = with_engines(Server(root, {"PYTHONPATH": os.pathsep.join(sys.path)}), "red", "blue").start()
        try:
            (root / "tree").mkdir()
            (root / "tree" / "file").write_text("all that an image needs")
            server.images.RegisterImage(image_upload("tiny", root / "tree"))
            server.kernels.ImportKernel(kernel_upload("made-up", made_up.VMLINUX))
            yield server
        finally:
            if server.process is not None and server.process.poll() is None:
                assert server.stop() == 0, server.said()
            no_process_left(server)


@pytest.fixture
def server(prepared: Server) -> Iterator[Server]:
    """With both engines again, when a test has left one of them out, and nothing of an earlier test's."""
    both = prepared.argv
    yield prepared
    for vm in prepared.list():
        delete(prepared, vm.id)
    if prepared.argv != both:
        prepared.stop()
        prepared.argv = both
        prepared.start()


def create(server: Server, name: str, engine: str, **fields: object) -> vm_pb2.Vm:
    spec = vm_pb2.VmSpec(name=name, engine=engine, image="tiny", kernel="made-up", **fields)  # type: ignore[arg-type]
    return server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm


def delete(server: Server, name: str) -> None:
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=name, force=True))


def engine_of(pid: int) -> str:
    """What kind of VMM a process really is."""
    _, _, program, engine, *_ = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    assert program.endswith("fake_vmm.py")
    return engine


def answers(server: Server, name: str) -> bool:
    return server.run(name, "echo", name) == (0, f"{name}\n".encode(), b"")


def test_each_vm_is_adopted_stopped_and_started_by_its_own_engine(server: Server) -> None:
    made = {name: create(server, name, name) for name in ("red", "blue")}
    assert {name: (vm.engine, engine_of(vm.pid)) for name, vm in made.items()} == {name: (name, name) for name in made}
    assert all(answers(server, name) for name in made)
    server.kill()
    server.start()
    for name, vm in made.items():
        now = server.vms.GetVm(vm_pb2.GetVmRequest(vm=name)).vm
        assert (now.state, now.pid, now.engine) == (vm_pb2.VM_STATE_RUNNING, vm.pid, name)
        assert answers(server, name)
        assert server.vms.StopVm(vm_pb2.StopVmRequest(vm=name)).vm.state == vm_pb2.VM_STATE_STOPPED
        assert engine_of(server.vms.StartVm(vm_pb2.StartVmRequest(vm=name)).vm.pid) == name
        assert answers(server, name)
        delete(server, name)
    nothing_left(server)


def test_a_vm_whose_engine_is_gone_is_told_and_deleted_and_keeps_no_other_down(server: Server) -> None:
    lost, stopped = create(server, "red", "red"), create(server, "stopped", "red")
    server.vms.StopVm(vm_pb2.StopVmRequest(vm="stopped"))
    create(server, "blue", "blue")
    assert server.stop() == 0
    with_engines(server, "blue").start()
    assert answers(server, "blue")
    told = "VM 'red' is of engine red; this server has qemu, blue"
    assert server.vms.GetVm(vm_pb2.GetVmRequest(vm="red")).vm.state == vm_pb2.VM_STATE_RUNNING
    assert told in server.vms.GetVmHealth(vm_pb2.GetVmHealthRequest(vm="red")).problem
    for refusal in (
        refused(server.run, "red", "true"),
        refused(server.vms.StopVm, vm_pb2.StopVmRequest(vm="red")),
        refused(server.vms.StartVm, vm_pb2.StartVmRequest(vm="stopped")),
    ):
        assert "is of engine red; this server has qemu, blue" in refusal.message
        assert "ingle vm delete --force" in refusal.remedy
    (check,) = (check for check in server.system.Examine(system_pb2.ExamineRequest()).checks if check.name == "engines")
    assert check.detail == "red: this server has no engine red; stopped: this server has no engine red"
    subprocess.run(["kill", "-0", str(lost.pid)], check=True)
    for name in ("red", "stopped", "blue"):
        delete(server, name)
    assert stopped.pid != lost.pid
    nothing_left(server)


def test_a_vm_that_ended_while_its_engine_was_gone_is_seen_to_have(server: Server) -> None:
    vm = create(server, "red", "red")
    assert server.stop() == 0
    subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(vm.pid)], check=True)
    with_engines(server, "blue").start()
    assert server.vms.GetVm(vm_pb2.GetVmRequest(vm="red")).vm.state == vm_pb2.VM_STATE_ERROR
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm="red"))
    nothing_left(server)


def test_a_disk_that_an_engine_can_not_open_leads_to_another_or_to_one_error(server: Server) -> None:
    assert create(server, "red", "red").disk_backend in {"copy", "reflink"}
    delete(server, "red")
    refusal = refused(create, server, "red", "red", disk_backend="qcow2", acceleration=vm_pb2.ACCELERATION_KVM)
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.message == (
        "no engine can run this VM here: red: it has no kvm, and disk backend qcow2: it takes no qcow2"
    )
    assert refusal.remedy == "use --accel tcg"
    assert "one of auto, qemu, red, blue is allowed" in refused(create, server, "green", "green").message
    names = [engine.name for engine in server.system.GetInfo(system_pb2.GetInfoRequest()).engines]
    assert names == ["qemu", "red", "blue"]
    nothing_left(server)

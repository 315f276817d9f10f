"""What a VMM sees of the host, from inside the namespaces of one that runs a guest."""

import os
import subprocess
from pathlib import Path

from harness import Server, cloned_directory, running_server
from ingle.v1 import system_pb2, vm_pb2


def created(server: Server, name: str) -> vm_pb2.Vm:
    return server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name=name))).vm


def seen(pid: int, script: str) -> str:
    """What a shell says that has joined them: with more rights than any VMM has."""
    enter = ["nsenter", f"--target={pid}", "--user", "--mount", "--pid", "--ipc", "--uts", "--wd=/", "--root"]
    done = subprocess.run([*enter, "--", "/bin/sh", "-c", script], capture_output=True, text=True, check=False)
    return "\n".join(line for line in (done.stdout + done.stderr).splitlines() if "getcwd" not in line)


def test_from_inside_a_vmm_nothing_of_another_vm_is_seen(prepared: Path) -> None:
    with cloned_directory(prepared) as root, running_server(root) as server:
        state = root / "state" / "ingle"
        one, other = (created(server, name) for name in ("one", "other"))
        assert os.readlink(f"/proc/{one.pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
        said = seen(
            one.pid, f"ls -A {state} {state}/vms; ls -A / /dev; echo > {state}/vms/{one.id}/mark && echo written"
        )
        assert other.id not in said
        for name in ("ingle.db", "api.sock", "home", "root", "proc", "sys"):
            assert name not in said.split(), name
        assert one.id in said.split()
        assert "written" in said.split()
        images = next((state / "images").glob("*/rootfs.ext4"))
        assert "Read-only" in seen(one.pid, f"echo >> {images}")
        assert seen(one.pid, "kill -0 1 && echo itself") == "itself"
        assert "No such process" in seen(one.pid, f"kill -0 {other.pid}")
        assert server.run(other.id, "true")[0] == 0


def test_without_namespaces_vms_run_and_the_doctor_says_so(prepared: Path, tmp_path: Path) -> None:
    """On a host that forbids them to ordinary users."""
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
    refusing.chmod(0o755)
    with (
        cloned_directory(prepared) as root,
        running_server(root, {"PATH": f"{tmp_path}:{os.environ['PATH']}"}) as server,
    ):
        vm = created(server, "seen")
        assert server.run(vm.id, "true")[0] == 0
        assert os.readlink(f"/proc/{vm.pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
        checks = {check.name: check for check in server.system.Examine(system_pb2.ExamineRequest()).checks}
        assert "No permissions to create new namespace" in checks["isolation"].detail

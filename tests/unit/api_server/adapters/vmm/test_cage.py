"""A VMM sees its own VM and nothing of the others: programs that try are started as VMMs are."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ingle.api_server.adapters.vmm import FoundVmms, launching, vmms_below
from ingle.api_server.adapters.vmm.cage import Cage, View, view_of
from ingle.api_server.adapters.vmm.found import process_name
from ingle.api_server.host.bounded_log import read_end
from ingle.api_server.host.files import remove_tree
from ingle.api_server.host.process import Process, start_time_of
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.vm import Acceleration
from ingle.api_server.ports.disk import Disk, DiskFormat
from ingle.api_server.ports.engine import LaunchPlan, VmPaths
from unit.api_server.vmms import VM

SHELL = "/bin/bash"  # which tells its version, as VMMs do
OTHER = replace(VM, id="ba9876543210")


@dataclass(frozen=True)
class Host:
    """A server's directories, with two VMs in them."""

    root: Path

    def paths(self, vm_id: str) -> VmPaths:
        return VmPaths(self.root / "state" / "vms" / vm_id, self.root / "run" / vm_id)

    async def start(self, argv: Sequence[str], view: View | None = None) -> Process:
        paths = self.paths(VM.id)
        cage = await Cage(Tools(self.root)).around(argv[0], paths, View() if view is None else view)
        assert cage, "namespaces of an ordinary user's are what this host is to have"
        return await launching.spawn((*argv, process_name(VM.id)), VM, paths, cage=cage)

    def said(self) -> str:
        """The log begins behind all of the VM's disk."""
        return read_end(self.paths(VM.id).vmm_log, 65536).decode().lstrip("\0")

    async def tried(self, script: str, view: View | None = None) -> str:
        """What a shell says that is started as a VMM."""
        process = await self.start((SHELL, "-c", f"exec 2>&1; {script}"), view)
        try:
            await process.wait(60)
        finally:
            process.close()
        return self.said()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    for vm_id in (VM.id, OTHER.id):
        for directory in (host.paths(vm_id).state, host.paths(vm_id).runtime):
            directory.mkdir(parents=True, mode=0o700)
        (host.paths(vm_id).state / "disk.raw").write_text(f"of {vm_id}")
    (tmp_path / "state" / "ingle.db").write_text("all of everybody's")
    (tmp_path / "state" / "api.sock").write_text("")
    (tmp_path / "image").write_text("shared")
    return host


async def test_it_has_its_own_directory_and_what_it_needs(host: Host) -> None:
    script = f"pwd; cat disk.raw; echo more >> disk.raw; cat {host.root}/image; echo > {host.root}/image"
    said = await host.tried(script, View(reads=(host.root / "image",)))
    assert said.startswith(f"{host.paths(VM.id).state}\nof {VM.id}shared")
    assert "Read-only file system" in said
    assert (host.paths(VM.id).state / "disk.raw").read_text() == f"of {VM.id}more\n"
    assert (host.root / "image").read_text() == "shared"


def plan_of(host: Host, memory: Path | None = None) -> LaunchPlan:
    """Of a VM whose kernel has a disk with modules."""
    kernel = host.root / "state" / "kernels" / "k"
    disk = Disk(host.paths(VM.id).state / "disk.raw", DiskFormat.RAW)
    return LaunchPlan(
        VM,
        host.paths(VM.id),
        kernel / "vmlinux",
        disk,
        Acceleration.TCG,
        b"",
        memory=memory,
        modules_disk=kernel / "modules.squashfs",
    )


@pytest.mark.parametrize("from_memory", [False, True])
async def test_of_kernels_it_has_the_one_disk_with_modules_and_may_not_change_it(host: Host, from_memory: bool) -> None:
    for name in ("k/vmlinux", "k/modules.squashfs", "other/modules.squashfs"):
        path = host.root / "state" / "kernels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    kernels = host.root / "state" / "kernels"
    script = f"cd {kernels}; cat k/modules.squashfs; echo; echo > k/modules.squashfs; ls * ; exit 0"
    view = view_of(plan_of(host, host.root / "none" if from_memory else None))
    said = (await host.tried(script, view)).splitlines()
    assert said[0] == "content of k/modules.squashfs"
    assert "Read-only file system" in said[1]
    assert said[2:] == (["modules.squashfs"] if from_memory else ["modules.squashfs", "vmlinux"])


async def test_nothing_else_of_the_host_is_there(host: Host) -> None:
    elsewhere = (
        host.paths(OTHER.id).state,
        host.paths(OTHER.id).runtime,
        host.root / "state" / "ingle.db",
        host.root / "state" / "api.sock",
        *map(Path, ("/proc/self", "/proc/1", "/sys/kernel", "/home", "/root", "/run", "/var", "/etc/passwd")),
        *map(Path, ("/dev/kvm", "/dev/net", "/dev/mem", "/dev/vda", "/dev/shm", "/dev/pts")),
    )
    looks = "; ".join(f"test -e {path} && echo {path} is there" for path in elsewhere)
    listed = (host.root, host.root / "state", host.root / "state" / "vms")
    said = await host.tried(f"{looks}; ls -A {' '.join(map(str, listed))}")
    assert said.split() == [f"{listed[0]}:", "state", f"{listed[1]}:", "vms", f"{listed[2]}:", VM.id]


async def test_it_has_no_rights_and_none_of_the_servers_variables(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    process = await host.start((SHELL, "-c", "env; sleep 1000 & wait"))
    try:
        while "PWD=" not in host.said():
            await asyncio.sleep(0.01)
        assert "abc" not in host.said()
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        assert {int(status[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert status["NoNewPrivs"] == "1"
        assert status["NSpid"].split() == [str(process.pid), "1"]
        for kind in ("user", "mnt", "pid", "ipc", "uts"):
            assert os.readlink(f"/proc/{process.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"), kind
    finally:
        process.signal(signal.SIGKILL)
        await process.wait()
        process.close()


async def test_it_is_found_adopted_and_killed_as_the_host_sees_it(host: Host) -> None:
    paths = host.paths(VM.id)
    process = await host.start((SHELL, "-c", "sleep 1000; true"))
    assert process.start_time == start_time_of(process.pid)
    while not (found := vmms_below(paths.state.parent)):
        await asyncio.sleep(0.01)
    assert found == {VM.id: process.pid}
    adopted = Process.adopt(process.pid, process.start_time)
    assert adopted is not None
    await FoundVmms().kill_all(paths)
    assert await adopted.wait(60)
    assert await process.wait(60)
    adopted.close()
    process.close()
    assert not _with_argument(process_name(VM.id))


async def test_one_whose_directory_is_gone_is_killed_all_the_same(host: Host) -> None:
    process = await host.start((SHELL, "-c", "sleep 1000; true"))
    while not vmms_below(host.paths(VM.id).state.parent):
        await asyncio.sleep(0.01)
    remove_tree(host.paths(VM.id).state)
    await FoundVmms().kill_all(host.paths(VM.id))
    assert await process.wait(60)
    process.close()


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("exit 148", 148), ("exit 153", 153)])
async def test_how_it_ended_is_told(host: Host, script: str, code: int) -> None:
    process = await host.start((SHELL, "-c", script))
    assert await process.wait(60)
    assert process.exit_code == code
    process.close()


async def test_what_killed_it_is_told(host: Host) -> None:
    process = await host.start((SHELL, "-c", "sleep 1000; true"))
    process.signal(signal.SIGKILL)
    assert await process.wait(60)
    assert process.exit_code == -signal.SIGKILL
    process.close()


async def test_what_can_not_be_made_for_it_is_in_its_log(host: Host) -> None:
    process = await host.start((SHELL, "-c", "true"), View())
    await process.wait(60)
    process.close()
    remove_tree(host.paths(VM.id).state / "disk.raw")
    cage = await Cage(Tools(host.root)).around(SHELL, host.paths(VM.id), View())
    broken = [*cage, "--bind", str(host.root / "absent"), "/absent"]
    process = await launching.spawn((SHELL, "-c", "true", process_name(VM.id)), VM, host.paths(VM.id), cage=broken)
    assert await process.wait(60)
    assert process.exit_code == 1
    assert "absent" in host.said()
    process.close()


async def test_a_server_that_is_killed_while_it_starts_one_leaves_none_that_is_not_found(host: Host) -> None:
    """At the moment when all waits for the server, and at those around it."""
    arguments = json.dumps([str(host.root), VM.id])
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05):
        server = subprocess.Popen([sys.executable, "-c", _SERVER, arguments], stdout=subprocess.PIPE)  # noqa: ASYNC220
        assert server.stdout is not None
        server.stdout.readline()
        await asyncio.sleep(delay)
        server.kill()
        server.communicate()
        await asyncio.sleep(0.5)  # the next one takes longer to come up: what was amid exec() is through by then
        await FoundVmms().kill_all(host.paths(VM.id))
        assert not _with_argument(process_name(VM.id))


_SERVER = """
import asyncio, json, sys
from pathlib import Path
from ingle.api_server.adapters.vmm.cage import Cage, View
from ingle.api_server.host.caged import spawn_caged
from ingle.api_server.host.tool import Tools
from ingle.api_server.ports.engine import VmPaths
from ingle.api_server.adapters.vmm.found import process_name
async def main():
    root, vm = json.loads(sys.argv[1])
    paths = VmPaths(Path(root, "state", "vms", vm), Path(root, "run", vm))
    cage = await Cage(Tools(Path(root))).around("/bin/bash", paths, View())
    print(flush=True)
    await spawn_caged(cage, ["/bin/bash", "-c", "sleep 1000; true", process_name(vm)], stderr=paths.vmm_log)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


async def test_where_namespaces_are_refused_it_is_said_and_there_is_no_cage(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a host does that forbids them to ordinary users."""
    refusing = host.root / "bin" / "bwrap"
    refusing.parent.mkdir()
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{refusing.parent}:{os.environ['PATH']}")
    cage = Cage(Tools(host.root))
    assert "No permissions to create new namespace" in await cage.problem(SHELL)
    assert await cage.around(SHELL, host.paths(VM.id), View()) == ()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("ingle.api_server.host.tool._SBIN", ())
    assert "bubblewrap" in await cage.problem(SHELL)


def _with_argument(argument: str) -> list[str]:
    found = []
    for entry in os.listdir("/proc"):
        try:
            argv = Path("/proc", entry, "cmdline").read_bytes().split(b"\0") if entry.isdigit() else []
        except OSError:
            continue
        if argument.encode() in argv:
            found.append(entry)
    return found

"""Every example of help is typed into a shell on a terminal, with what it needs there, and does what it is to show."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest
import zstandard
from typer.main import get_command

from free_ports import free_port
from harness import Server, cloned_directory, server_directory
from ingle.cli.app import app
from ingle.testing import made_up
from ingle.v1 import snapshot_pb2, vm_pb2
from unit.cli.test_examples import examples
from uploading import image_upload, kernel_upload

PATIENCE_SECONDS = 60
DETACH, INTERRUPT = "\x10\x11", "\x03"
PROMPT, ANYTHING = r"[#$] ", r"\S"
OPERATION = "op-0123456789ab"

NOT_RUN = {
    r"^sudo |^ingle system": "of a whole machine: tests/lab types those that README has",
    r"--refresh|trixie|apt-get|docker://": "brings something from the network, which may be slow or absent",
    r"python:3.12|redis": "an image of a registry: test_registry_images types them with one of its own",
    r"image build": "takes the minutes of making a builder: test_image_build does it, with --slow",
    r"app\.tar|app:v1": "an image that was built, or is in an archive: test_image_build, contract/test_image_archives",
    r"my-systemd": "an image of one's own: test_image_init boots it",
    r"make test|python3|\btop\b": "of a program that the default image does not have",
    r"^ssh ": "the default image has no SSH server",
    r"-amd64$": "a kernel of another host",
    r"3f2a 91bc": "ids of nobody",
    r"config edit": "opens an editor: contract/cli/test_config.py has some that type by themselves",
    r"^ingle vm wait": "waits for what somebody else does: contract/cli/test_wait.py does it",
    r"^ingle server logs": "of a server that a command has started: contract/cli/test_server_on_demand.py has one",
    r"^ingle events": "says nothing until something happens: test_events makes that happen",
    r"attach --steal --detach-keys": "a session of an id that it gets: test_sessions takes over one with other keys",
}
"""Examples that no test runs, and why."""

GOES_ON = {
    r"^ingle vm run --rm$|^ingle vm shell --new": (PROMPT, "exit\r"),
    r"^ingle vm (shell|session attach web)|^ingle vm run --name": (PROMPT, DETACH),
    r"^ingle vm forward": (r"127\.0\.0\.1|0\.0\.0\.0|db\.sock", INTERRUPT),
    r"--watch|-w --interval|logs -f": (ANYTHING, INTERRUPT),
}
"""What goes on until somebody ends it: what it says, and what is typed then."""

ABSENT = r"create --name web|run (-d )?--name web|name job"
USES_FILES = r"^(?!.*--name web|.*-- date$).*vm (exec|file|cp|health) .*web"
CHANGES_FILES = r"vm file (rm|mv|mkdir)"
TWO_VMS = r"cp a:"
PAUSED = r"^ingle vm resume"
HIBERNATED = r"^ingle vm wake"
STOPPED = r"^ingle vm start|(set|update) web --(vcpu|disk)|^ingle vm delete"
ANY_VM = r"^ingle vm shell$|\$\(ingle (ps|vm list)"
UNUSED = r"(image|kernel) (delete|rm)"
SNAPSHOTS = r"^ingle (snapshot|vm (fork|restore))\b"
OF_A_LIFE = (
    r"^(?!.*--publish)ingle vm (create|start|stop|restart|kill|update|set|rename|delete|rm|prune)\b"
    r"|^ingle (snapshot|vm (pause|resume|hibernate|wake|fork|restore))\b"
    r"|run (-d|.* uname)|(image|kernel) (warm|delete|rm|prune)"
)
"""What the server does with VMs and what they are made of, whatever machine is below: what is done in a guest does a
host no harm."""

TAKES_AWAY = (
    r"vm (stop|restart|kill)",
    r"vm (delete|rm)",
    r"snapshot (delete|rm)",
    r"prune",
    r"(image|kernel) (delete|rm)",
    r"server (st|re|lo)",
)

GUEST = """
umask 0; echo x >>/var/log/serve.log
printf '#!/bin/sh\\necho "$@"\\n' | tee /srv/serve /check /root/check /serve /root/serve >/dev/null
chmod 755 /srv/serve /check /root/check /serve /root/serve; ln -sf /proc/mounts /etc/mtab
rm -rf /srv/old /srv/new /srv/current; mkdir -p /srv/old /srv/new
echo x | tee /tmp/x /var/log/x /a /b /root/a /root/b /var/log/syslog >/dev/null
"""
HOST = (
    "mkdir -p site src tree/etc; echo X=y >app.env; "
    "echo x | tee motd site/index.html src/main.c key tree/etc/x >/dev/null; rm -rf db.sock"
)


@dataclass
class Place:
    """Where examples are typed: a shell's directory and environment, and free ports for those that examples name."""

    server: Server
    directory: Path
    forked: Path
    """A directory with an `ingle` that is fast."""

    def __post_init__(self) -> None:
        self.environment = {
            **self.server.env,
            "PATH": f"{Path(sys.executable).parent}:{self.server.env['PATH']}",
            "HOME": str(self.directory),
            "INGLE_MODE": "user",
            "TERM": "dumb",
            "MANPAGER": "cat",
        }
        self._with_files: set[str] = set()
        self._ports = {port: str(free_port()) for port in ("8080", "5353", "5432", "2375")}

    def type(self, line: str, *ends: tuple[str, str]) -> str:
        """What came; each of `ends` is waited for and answered. Fails when it does not end well."""
        path = self.environment["PATH"]  # a terminal's signals are for what is its child
        bash = pexpect.spawn(
            "bash",
            ["--norc", "-c", f"set -o pipefail; {line}"],
            cwd=str(self.directory),
            env={**self.environment, "PATH": path if ends else f"{self.forked}:{path}"},
            echo=False,
            encoding="utf-8",
            codec_errors="replace",
            timeout=PATIENCE_SECONDS,
            dimensions=(30, 200),
        )
        bash.delaybeforesend = None
        bash.ptyproc.delayafterclose = 0
        said = ""
        try:
            for pattern, answer in ends:
                bash.expect(pattern)
                said += f"{bash.before}{bash.after}"
                bash.send(answer)
            bash.expect(pexpect.EOF)
            bash.wait()
        except (pexpect.TIMEOUT, pexpect.EOF):
            pytest.fail(f"{line}: it did not say what it should; there came:\n{said}{bash.before}")
        finally:
            bash.close(force=True)
        said += str(bash.before)
        fine = {0, 130} if any(answer == INTERRUPT for _, answer in ends) else {0}
        assert bash.exitstatus in fine, f"{line}: exit code {bash.exitstatus}\n{said}"
        return said

    def run(self, example: str) -> None:
        """The example, with what it needs."""
        names = [name for name in ("web", "db", "cache") if re.search(rf"\b{name}\b", example)]
        if re.search(SNAPSHOTS, example):
            self.keep(() if re.search(r"snapshot create web before$", example) else ("before", "after"))
            if "snapshot import before.ingle" in example:
                self.type(f"{HOST}; ingle snapshot export before before.ingle")
        elif re.search(UNUSED, example):
            self.clear()
        elif re.search(TWO_VMS, example):
            self.be({"web": "running", "db": "running"})
            self.type("ingle vm set web --name a && ingle vm set db --name b")
        elif re.search(ABSENT, example):
            self.type("ingle vm rm -f web job 2>/dev/null; true")
            self._with_files.clear()
        else:
            names = names or (["web"] if re.search(ANY_VM, example) else [])
            states = {STOPPED: "stopped", PAUSED: "paused", HIBERNATED: "hibernated"}
            wanted = [state for pattern, state in states.items() if re.search(pattern, example)]
            self.be(dict.fromkeys(names, wanted[0] if wanted else "running"))
        if re.search(r"\bshop$", example):  # a name that is given
            self.type("ingle vm rm -f shop 2>/dev/null; true")
        if re.search(USES_FILES, example):
            for name in {*names} - self._with_files:
                code, _, said = self.server.run(name, "sh", "-ec", GUEST)
                assert code == 0, said
                self._with_files.add(name)
        if re.search(CHANGES_FILES, example):
            self._with_files.clear()
        if example == "ingle vm shell":
            self.type("ingle vm rm -f job db 2>/dev/null; true")
        if OPERATION in example:
            found = json.loads(self.type("ingle operation list --limit 1 --json"))
            example = example.replace(OPERATION, found[0]["id"])
        for told, free in self._ports.items():
            example = re.sub(rf"\b{told}\b(?=:|$| 0:)", free, example)
        self.type(f"{HOST}; {example}", *[end for pattern, end in GOES_ON.items() if re.search(pattern, example)][:1])
        if re.search(TWO_VMS, example):
            self.type("ingle vm set a --name web && ingle vm set b --name db")

    def keep(self, names: tuple[str, ...]) -> None:
        """There is `web`, it runs, and these are snapshots of it; nothing else is there."""
        vms = {vm.name: vm.state for vm in self.server.list()}
        snapshots = {snapshot.name for snapshot in self.server.snapshot_list()}
        if (vms, snapshots) == ({"web": vm_pb2.VM_STATE_RUNNING}, {*names}):
            return
        self.clear()
        self.be({"web": "running"})
        for name in names:
            self.server.snapshots.CreateSnapshot(snapshot_pb2.CreateSnapshotRequest(vm="web", name=name))

    def clear(self) -> None:
        """There is no VM, and no snapshot."""
        for vm in self.server.list():
            self.server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
        for snapshot in self.server.snapshot_list():
            self.server.snapshots.DeleteSnapshot(snapshot_pb2.DeleteSnapshotRequest(snapshot=snapshot.id))

    def be(self, states: dict[str, str]) -> None:
        """VMs are there, and in such states."""
        if not states:  # there may be no server any more
            return
        vms = {vm.name: vm.state for vm in self.server.list()}
        for name, state in states.items():
            if vms.get(name) != vm_pb2.VM_STATE_RUNNING:
                self._with_files.discard(name)  # it may be another one
            if name not in vms:
                self.server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name=name), no_start=True))
            is_running = vms.get(name) == vm_pb2.VM_STATE_RUNNING
            if state == "stopped" and is_running:
                self.server.vms.KillVm(vm_pb2.KillVmRequest(vm=name))
            elif state != "stopped" and not is_running:
                self.server.vms.StartVm(vm_pb2.StartVmRequest(vm=name))
            if state == "paused":
                self.server.vms.PauseVm(vm_pb2.PauseVmRequest(vm=name))
            elif state == "hibernated":
                self.server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=name))


def lines() -> list[str]:
    """Those that are run: those that take away last."""
    found = dict.fromkeys(re.sub(r"\s+# .*", "", line) for line in examples(get_command(app)))
    run = [line for line in found if not any(re.search(why, line) for why in NOT_RUN)]

    def late(line: str) -> int:
        taken = [number for number, pattern in enumerate(TAKES_AWAY, 1) if re.search(f"ingle {pattern}", line)]
        return max(taken, default=0) if taken else -bool(re.search(ABSENT, line))

    return sorted(run, key=late)


@contextmanager
def new_place(server: Server, directory: Path, forked: Path) -> Iterator[Place]:
    """A place with the server, that leaves nothing."""
    place = Place(server.start(), directory, forked)
    yield place
    place.type("ingle vm rm -f $(ingle ps -q) 2>/dev/null; ingle server stop")
    assert server.vmm_processes() == {}


@pytest.fixture(scope="module")
def forked() -> Iterator[Path]:
    """A directory with an `ingle` that is forked from one with all modules loaded."""
    with server_directory() as directory:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen([sys.executable, "-m", "integration.forked_ingle", directory], env=environment)
        try:
            while not (directory / "ingle").exists():
                assert process.poll() is None
                time.sleep(0.01)
            yield directory
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def place(prepared: Path, forked: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    tmp_path = tmp_path_factory.mktemp("examples")
    with cloned_directory(prepared) as root, new_place(Server(root), tmp_path, forked) as place:
        for directory in (".local/share/bash-completion/completions", ".config/fish/completions"):
            (tmp_path / directory).mkdir(parents=True)
        (kernel,) = (root / "state" / "ingle" / "kernels").glob("*/vmlinux")
        (tmp_path / "vmlinux").symlink_to(kernel)
        place.type(f"{HOST}; tar c -C tree . >base.tar")
        archive = zstandard.ZstdCompressor().compress((tmp_path / "base.tar").read_bytes())
        (tmp_path / "base.tar.zst").write_bytes(archive)
        place.environment["BASH_ENV"] = str(tmp_path / "zsh")
        (tmp_path / "zsh").write_text("fpath=(. .)\n")
        yield place


@pytest.fixture(scope="module")
def fast_place(forked: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One whose VMs boot within a fraction of a second, since no machine is below them."""
    with server_directory() as root:
        server = Server(root, {"PYTHONPATH": os.pathsep.join(sys.path)})
        server.argv = [sys.executable, "-m", "ingle.testing.serve", "fake", "serve"]
        with new_place(server, tmp_path_factory.mktemp("fast"), forked) as place:
            (root / "tree").mkdir()
            (root / "tree" / "file").write_text("all that an image needs")
            server.images.RegisterImage(image_upload("debian:bookworm", root / "tree"))
            server.kernels.ImportKernel(kernel_upload("debian", made_up.VMLINUX))
            yield place


@pytest.mark.parametrize("line", [line for line in lines() if not re.search(OF_A_LIFE, line)])
def test_every_example_can_be_typed(place: Place, line: str) -> None:
    place.run(line)


@pytest.mark.parametrize("line", [line for line in lines() if re.search(OF_A_LIFE, line)])
def test_every_example_of_a_vms_life_can_be_typed(fast_place: Place, line: str) -> None:
    assert not re.search(USES_FILES, line), "the files of this guest are the host's"
    fast_place.run(line)


def test_every_reason_not_to_run_an_example_is_one() -> None:
    every = [re.sub(r"\s+# .*", "", line) for line in examples(get_command(app))]
    assert [why for why in NOT_RUN if not any(re.search(why, line) for line in every)] == []
    assert len(lines()) > 100

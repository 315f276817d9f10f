"""One lab: a QEMU process that ends with us, its console, and the way to the agent in it.

A lab that has booted is frozen beside its disk, memory and all, so that the next one need not boot.
"""

import hashlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from free_ports import free_port
from ingle.api_server.adapters.qemu.command import EMULATED_CPU, kernel_arguments
from ingle.api_server.host.tool import require
from ingle.api_server.host.tsc import tsc_khz
from ingle.api_server.model.vm import Acceleration
from ingle.api_server.programs import agent_binary
from lab import initramfs
from lab.guest import Guest

_MEMORY = "5G"
_DISK = "16G"
_UP_SECONDS = 480.0
_ATTEMPTS = 3
_TAIL_LINES = 100  # a panic and its trace
_FROZEN, _SCRATCH = "frozen-", "ingle-lab-"
_UNUSED_SECONDS = 3600.0

# cmpxchg16b is the slab allocator's, and where its lists broke (QEMU 7.2).
_EMULATED_CPU = f"{EMULATED_CPU},cx16=off"
_EMULATED_ARGUMENTS = "mitigations=off init_on_alloc=0"

_FREEZING = Lock()
"""Of two labs that begin together one makes what both continue from."""

# Left of the lab in its directory; QEMU's working directory, so that no name needs quoting.
_OVERLAY, _INITRAMFS, _TOKEN, _STATE = "disk.qcow2", "initramfs", "token", "state"


class LabError(Exception):
    """The lab did not come up, died, or fell silent; says what the console showed last."""


class LabDiedError(LabError):
    """Its QEMU ended: the kernel panicked, or somebody killed it."""


class Machine:
    """A running lab."""

    def __init__(self, process: "subprocess.Popen[bytes]", guest: Guest, logs: Path) -> None:
        self._process = process
        self.guest = guest
        self._logs = logs

    def alive(self, patience: float = 0.0) -> bool:
        """Whether it runs, and still will after `patience` seconds."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return True
        return False

    def console_tail(self) -> str:
        """What the console showed last."""
        console = self._logs / "console.log"
        lines = console.read_text(errors="replace").splitlines()[-_TAIL_LINES:] if console.exists() else []
        return "\n".join(["the lab's console ends with:", *lines]) if lines else "the lab's console is empty"

    def wait_until_up(self) -> None:
        """Return when the agent answers. Raises LabError."""
        deadline = time.monotonic() + _UP_SECONDS
        while not self.guest.answers():
            if not self.alive():
                said = (self._logs / "qemu.log").read_text(errors="replace")
                raise LabDiedError(f"the lab's QEMU ended\n{said}\n{self.console_tail()}")
            if time.monotonic() > deadline:
                raise LabError(f"the lab did not come up in {_UP_SECONDS:.0f} s\n{self.console_tail()}")
            time.sleep(0.2)

    def freeze(self) -> None:
        """Stop it, write its memory to the file `state` of its directory, and end it. Raises LabError."""
        self._process.communicate(f'migrate "exec:cat >{_STATE}"\ninfo migrate\nquit\n'.encode())
        said = (self._logs / "qemu.log").read_text(errors="replace")
        if "Migration status: completed" not in said:
            raise LabError(f"the lab could not be frozen\n{said}")

    def stop(self) -> None:
        """End it at once: nothing on its disk is kept."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def running(disk: Path, logs: Path) -> Iterator[Machine]:
    """A lab, up and answering, on an overlay of the disk in the directory `disk`. Raises LabError."""
    with _FREEZING:
        frozen = _frozen(disk, logs)
    with _scratch(Path(tempfile.gettempdir())) as directory:
        for name in (_INITRAMFS, _STATE):
            (directory / name).symlink_to(frozen / name)
        _make_overlay(directory, frozen / _OVERLAY, "qcow2")
        try:
            machine = _start(disk, directory, logs, (frozen / _TOKEN).read_bytes())
        except LabError:
            # Perhaps it is what was frozen that is bad: another attempt shall boot.
            shutil.rmtree(frozen)
            raise
        try:
            machine.guest.run("date", "--set", f"@{time.time()}")
            yield machine
        finally:
            machine.stop()


def _frozen(disk: Path, logs: Path) -> Path:
    """The directory of a frozen lab with the present agent; made, by booting one, if there is none."""
    brought = initramfs.archive(agent_binary(), b"", disk / "modules", Path(require("busybox")))
    digest = hashlib.sha256(brought + repr(_machine(disk)).encode() + Path(__file__).read_bytes())
    frozen = disk / f"{_FROZEN}{digest.hexdigest()[:16]}"
    if not frozen.exists():
        for other in (*disk.glob(f"{_FROZEN}*"), *disk.glob(f"{_SCRATCH}*")):
            if time.time() - other.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(other)
        with _scratch(disk) as directory:
            token = secrets.token_bytes(32)
            (directory / _TOKEN).write_bytes(token)
            brought = initramfs.archive(agent_binary(), token, disk / "modules", Path(require("busybox")))
            (directory / _INITRAMFS).write_bytes(brought)
            _make_overlay(directory, disk / "disk.ext4", "raw")
            machine = _start(disk, directory, logs, token)
            try:
                # Its exit code says whether it is degraded, which is for a test to tell.
                machine.guest.run("sh", "-c", "systemctl is-system-running --wait || true; sync")
                machine.freeze()
            finally:
                machine.stop()
            try:
                directory.rename(frozen)
            except OSError:
                # Somebody else's was ready first. Ours stays in the scratch directory, and goes with it.
                if not frozen.exists():
                    raise
            else:
                directory.mkdir()
    os.utime(frozen)
    return frozen


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A directory of our own below `parent`; private, since whoever has the token is root in the lab."""
    directory = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _make_overlay(directory: Path, base: Path, form: str) -> None:
    create = [require("qemu-img"), "create", "-q", "-f", "qcow2", "-b", str(base.absolute()), "-F", form]
    subprocess.run([*create, str(directory / _OVERLAY), _DISK], check=True)


def _start(disk: Path, directory: Path, logs: Path, token: bytes) -> Machine:
    """A lab in its directory, continuing from `state` there if it is there."""
    begin = ("-incoming", f"exec:cat {_STATE}") if (directory / _STATE).exists() else ()
    for attempt in range(_ATTEMPTS):
        port = free_port()
        with open(logs / "qemu.log", "wb") as log:
            process = subprocess.Popen(
                # It must not outlive us, however we end.
                ["setpriv", "--pdeathsig", "KILL", "--", *_machine(disk), *_outside(logs, port), *begin],
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # A session of its own: Ctrl-C on our terminal is for us.
                start_new_session=True,
            )
        machine = Machine(process, Guest("127.0.0.1", port, token), logs)
        try:
            machine.wait_until_up()
        except BaseException as error:
            machine.stop()
            # Somebody was faster than QEMU.
            if "Could not set up host forwarding rule" in str(error) and attempt + 1 < _ATTEMPTS:
                continue
            raise
        return machine
    raise AssertionError


def _machine(disk: Path) -> list[str]:
    """QEMU and the machine. INGLE_LAB_ACCEL=kvm is for hosts whose KVM nests; TCG emulates AMD's virtualization."""
    kvm = os.environ.get("INGLE_LAB_ACCEL") == "kvm"
    arguments = kernel_arguments(Acceleration.KVM if kvm else Acceleration.TCG, tsc_khz())
    if not kvm:
        arguments = f"{arguments} {_EMULATED_ARGUMENTS}"
    return [
        require("qemu-system-x86_64"),
        *("-M", "microvm,x-option-roms=off,rtc=on,acpi=on", "-nodefaults", "-no-user-config", "-no-reboot"),
        *(("-accel", "kvm", "-cpu", "host") if kvm else ("-accel", "tcg,thread=multi", "-cpu", _EMULATED_CPU)),
        # One processor: two wait for each other wherever the kernel has them agree, which on a busy host takes long.
        *("-smp", "1", "-m", _MEMORY, "-display", "none"),
        *(
            "-kernel",
            str(disk / "vmlinux"),
            "-initrd",
            _INITRAMFS,
            "-append",
            # A kernel with an oops behind it is good for nothing more.
            f"{arguments} oops=panic net.ifnames=0 systemd.show_status=0",
        ),
        *("-drive", f"id=root,file={_OVERLAY},format=qcow2,if=none,cache=unsafe,discard=unmap"),
        *("-device", "virtio-blk-device,drive=root"),
    ]


def _outside(logs: Path, port: int) -> list[str]:
    """What connects it with us."""
    forward = f"hostfwd=tcp:127.0.0.1:{port}-:{initramfs.AGENT_PORT}"
    return [
        *("-chardev", f"file,id=console,path={logs / 'console.log'}", "-device", "isa-serial,chardev=console"),
        *("-chardev", "stdio,id=monitor,signal=off", "-mon", "chardev=monitor,mode=readline"),
        *("-netdev", f"user,id=net,ipv6=off,{forward}", "-device", "virtio-net-device,netdev=net"),
    ]

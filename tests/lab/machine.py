"""One lab: a QEMU process that ends with us, its console, and the way to the agent in it."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingle.api_server.adapters.qemu.command import kernel_arguments
from ingle.api_server.agents import agent_binary
from ingle.api_server.host.tool import require
from ingle.api_server.host.tsc import tsc_khz
from ingle.api_server.model.vm import Acceleration
from lab import initramfs
from lab.guest import Guest

_MEMORY = "5G"
_DISK = "16G"
_BOOT_SECONDS = 480.0
_ATTEMPTS = 3
_TAIL_LINES = 40


class LabError(Exception):
    """The lab did not come up, died, or fell silent; says what the console showed last."""


class Machine:
    """A running lab."""

    def __init__(self, process: "subprocess.Popen[bytes]", guest: Guest, console: Path) -> None:
        self._process = process
        self.guest = guest
        self._console = console

    def alive(self) -> bool:
        return self._process.poll() is None

    def console_tail(self) -> str:
        """What the console showed last."""
        lines = self._console.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(["the lab's console ends with:", *lines]) if lines else "the lab's console is empty"

    def stop(self) -> None:
        """End it at once: nothing on its disk is kept."""
        self._process.kill()
        self._process.wait()


@contextmanager
def running(disk: Path, logs: Path) -> Iterator[Machine]:
    """A lab, up and answering, on an overlay of the disk in the directory `disk`. Raises LabError."""
    scratch = Path(tempfile.mkdtemp(prefix="ingle-lab-"))
    try:
        token = secrets.token_bytes(32)
        (scratch / "initramfs").touch(0o600)
        (scratch / "initramfs").write_bytes(
            initramfs.archive(agent_binary(), token, disk / "modules", Path(require("busybox")))
        )
        overlay = [require("qemu-img"), "create", "-q", "-f", "qcow2", "-b", str(disk / "disk.ext4"), "-F", "raw"]
        subprocess.run([*overlay, str(scratch / "disk.qcow2"), _DISK], check=True)
        machine = _start(disk, scratch, token, logs)
        try:
            yield machine
        finally:
            machine.stop()
    finally:
        shutil.rmtree(scratch)


def _start(disk: Path, scratch: Path, token: bytes, logs: Path) -> Machine:
    console = logs / "console.log"
    for _ in range(_ATTEMPTS):
        port = _free_port()
        with open(logs / "qemu.log", "wb") as log:
            process = subprocess.Popen(
                _command(disk, scratch, console, port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A session of its own: Ctrl-C on our terminal is for us.
                start_new_session=True,
            )
        machine = Machine(process, Guest("127.0.0.1", port, token), console)
        try:
            _wait_until_up(machine)
        except BaseException:
            machine.stop()
            said = (logs / "qemu.log").read_text(errors="replace")
            # Somebody was faster than QEMU.
            if "Could not set up host forwarding rule" in said:
                continue
            raise
        return machine
    raise LabError("QEMU found no port of the host to be reached at")


def _wait_until_up(machine: Machine) -> None:
    deadline = time.monotonic() + _BOOT_SECONDS
    while not machine.guest.answers():
        if not machine.alive():
            raise LabError(f"the lab's QEMU ended\n{machine.console_tail()}")
        if time.monotonic() > deadline:
            raise LabError(f"the lab did not come up in {_BOOT_SECONDS:.0f} s\n{machine.console_tail()}")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _command(disk: Path, scratch: Path, console: Path, port: int) -> list[str]:
    """QEMU's argv. INGLE_LAB_ACCEL=kvm is for hosts whose KVM nests; TCG emulates AMD's virtualization everywhere."""
    kvm = os.environ.get("INGLE_LAB_ACCEL") == "kvm"
    arguments = kernel_arguments(Acceleration.KVM if kvm else Acceleration.TCG, tsc_khz())
    arguments += " net.ifnames=0 systemd.show_status=0"
    return [
        # It must not outlive us, however we end.
        *("setpriv", "--pdeathsig", "KILL", "--", require("qemu-system-x86_64")),
        *("-M", "microvm,x-option-roms=off,rtc=on,acpi=on", "-nodefaults", "-no-user-config", "-no-reboot"),
        *(("-accel", "kvm", "-cpu", "host") if kvm else ("-accel", "tcg,thread=multi", "-cpu", "max")),
        *("-smp", "2", "-m", _MEMORY, "-display", "none"),
        *("-chardev", f"file,id=console,path={console}", "-device", "isa-serial,chardev=console"),
        *("-kernel", str(disk / "vmlinux"), "-initrd", str(scratch / "initramfs"), "-append", arguments),
        *("-netdev", f"user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-:{initramfs.AGENT_PORT}"),
        *("-device", "virtio-net-device,netdev=net"),
        *("-drive", f"id=root,file={scratch / 'disk.qcow2'},format=qcow2,if=none,cache=unsafe,discard=unmap"),
        *("-device", "virtio-blk-device,drive=root"),
    ]

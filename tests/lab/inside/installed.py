"""The server of an install, for tests that have one of their own elsewhere: what they do to it, systemd does."""

import os
import pwd
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness import Client, Server, no_process_left
from ingle.v1 import snapshot_pb2, vm_pb2
from lab.inside.commands import SECONDS, User, lab_run
from lab.inside.exactly import STATE

_UNIT = "ingle.service"
_CONFIGURATION = Path("/etc/ingle/config.toml")
_CACHE = Path("/var/cache/ingle")
_MOUNT = Path("/run/shares-blocks")
_FILE = Path("/var/tmp/shares-blocks.img")
_FILE_BYTES = 10 << 30  # sparse


class Unit:
    """The server's process, whichever that is by now. Implements harness.Spawned."""

    def __init__(self) -> None:
        self._signalled = 0

    @property
    def pid(self) -> int:
        """0 where there is none."""
        return int(lab_run("systemctl", "show", "--value", "--property", "MainPID", _UNIT))

    def poll(self) -> int | None:
        return None if self.pid else 0

    def send_signal(self, sig: int) -> None:
        self._signalled = self.pid
        os.kill(self._signalled, sig)

    def wait(self, timeout: float | None = None) -> int:
        """For the one that was sent a signal; systemd starts another one where it was killed."""
        deadline = time.monotonic() + (timeout or SECONDS)
        while self.pid == self._signalled:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return 0


class InstalledServer(Server):
    """As root asks it."""

    def __init__(self) -> None:
        Client.__init__(self, Path("/run/ingle/api.sock"), STATE)
        self.runtime = Path("/run/ingle/server")
        self.process = Unit()
        self.connect()

    def start(self) -> "InstalledServer":
        lab_run("systemctl", "reset-failed", _UNIT)  # which has been killed too often for systemd's taste
        lab_run("systemctl", "start", _UNIT)
        self.connect()
        return self

    def said(self) -> str:
        return lab_run("journalctl", "--boot", "--no-pager", "--lines=50", "--unit", _UNIT)

    def processes(self) -> dict[int, str]:
        """All of its user but itself and what serves names for it."""
        user, server = pwd.getpwnam("ingle").pw_uid, self.process and self.process.pid
        lines = lab_run("ps", "-U", str(user), "-o", "pid=,args=", code=None).splitlines()
        found = {int(pid): line for pid, _, line in (each.strip().partition(" ") for each in lines)}
        return {pid: line for pid, line in found.items() if pid != server and "dns" not in line}


@contextmanager
def installed_server(member: User, **configuration: str) -> Iterator[InstalledServer]:
    """The server, which does what `configuration` says as long as nothing else is asked for. Nothing is left there."""
    root = User("root", member.preloaded)
    before = _CONFIGURATION.read_text()
    server = InstalledServer()
    for key, value in configuration.items():
        root.run("ingle", "config", "set", key, value)
    try:
        yield server
        for vm in server.list():
            server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
        while kept := server.snapshot_list():  # the newest first: others rest on what is older
            server.snapshots.DeleteSnapshot(snapshot_pb2.DeleteSnapshotRequest(snapshot=kept[-1].id))
        no_process_left(server)
    finally:
        _CONFIGURATION.write_text(before)
        server.disconnect()


@contextmanager
def on_shared_blocks() -> Iterator[None]:
    """What the server keeps is meanwhile on a file system whose files can share blocks. VMs there were are away."""
    with _FILE.open("wb") as file:
        os.truncate(file.fileno(), _FILE_BYTES)
    places: Mapping[str, Path] = {"state": STATE, "cache": _CACHE}
    lab_run("mkfs.btrfs", "-q", str(_FILE))
    _MOUNT.mkdir()
    lab_run("mount", "-o", "loop", str(_FILE), str(_MOUNT))
    lab_run("systemctl", "stop", _UNIT)
    for name, place in places.items():
        lab_run("cp", "-a", "--sparse=always", str(place), str(_MOUNT / name))
        lab_run("mount", "--bind", str(_MOUNT / name), str(place))
    lab_run("systemctl", "start", _UNIT)
    try:
        yield
    finally:
        lab_run("systemctl", "stop", _UNIT)
        for place in (*places.values(), _MOUNT):
            lab_run("umount", str(place))
        _MOUNT.rmdir()
        _FILE.unlink()
        lab_run("systemctl", "start", _UNIT)

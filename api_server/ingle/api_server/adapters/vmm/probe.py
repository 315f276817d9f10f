"""Does KVM really run a guest here? Found out by booting one: /dev/kvm may open and yet be unable to.

The verdict is kept per kernel and host boot, since a new kernel or a new boot of the host can change it.
"""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ingle.api_server.host.files import write_atomically
from ingle.api_server.host.process import Process
from ingle.api_server.model.guest import GuestIdentity
from ingle.api_server.model.vm import Kernel
from ingle.api_server.ports.disk import BootConfig, BootMedia

MEMORY_BYTES = 256 * 1024 * 1024
"""Of a probe guest."""

_PROBE_SECONDS = 30.0
_READY = b"ingle-agent ready"
_LONGEST_SAID = 64 * 1024

Command = Callable[[Kernel, Path], Sequence[str]]
"""Argv of a VMM that boots a kernel under KVM, in the given directory, with the initramfs INITRAMFS in it. What its
guest writes to the probe's ready device comes to the file READY there, or to its stdout."""

INITRAMFS = "initramfs"
READY = "ready"
_OUTPUT = "output"


class AccelerationProbe:
    """Probe boots with a memory, of one engine: `name` is what its verdicts' files begin with."""

    def __init__(
        self,
        name: str,
        command: Command,
        ready_device: str,
        media: BootMedia,
        cache: Path,
        environment: Mapping[str, str],
    ) -> None:
        self._name = name
        self._command = command
        self._ready_device = ready_device
        self._media = media
        self._cache = cache
        self._environment = environment
        self._lock = asyncio.Lock()

    async def problem_with_kvm(self, kernel: Kernel) -> str:
        """Why KVM can't run `kernel` here; empty when it can. The first answer may take half a minute."""
        try:
            os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            return f"/dev/kvm: {error.strerror}"
        async with self._lock:
            verdict = self.known_verdict(kernel)
            if verdict is None:
                verdict = await self._boot(kernel)
                record = {"host_boot": _host_boot(), "problem": verdict}
                self._cache.mkdir(parents=True, exist_ok=True)
                write_atomically(self._record(kernel), json.dumps(record).encode())
            return verdict

    def known_verdict(self, kernel: Kernel) -> str | None:
        """What an earlier probe in this boot of the host found; None when there was none."""
        try:
            record = json.loads(self._record(kernel).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return str(record["problem"]) if record.get("host_boot") == _host_boot() else None

    def _record(self, kernel: Kernel) -> Path:
        return self._cache / f"{self._name}-{kernel.id}.json"

    async def _boot(self, kernel: Kernel) -> str:
        directory = self._cache / f"probe-{self._name}"
        if directory.exists():  # of a server that was killed in the middle of it
            shutil.rmtree(directory)
        directory.mkdir(parents=True, mode=0o700)
        try:
            config = BootConfig(GuestIdentity(hostname="probe"), ready_device=self._ready_device, power_off=True)
            await self._media.write(kernel, config, directory / INITRAMFS)
            argv = self._command(kernel, directory)
            guest = Process.spawn(argv, directory=directory, stderr=directory / _OUTPUT, env=self._environment)
            try:
                ended = await guest.wait(_PROBE_SECONDS)
            finally:
                guest.signal(signal.SIGKILL)
                await guest.wait()
                guest.close()
            # A guest that crashes ends its VMM just as cleanly as one that powers off: only the agent's word counts.
            output = _beginning(directory / _OUTPUT)
            if _READY in output or _READY in _beginning(directory / READY):
                return ""
            said = output.decode(errors="replace").strip().splitlines()
            how = "ended without booting" if ended else f"did not boot in {_PROBE_SECONDS:.0f} s"
            return f"a probe guest {how}{': ' + said[0] if said else ''}"
        finally:
            shutil.rmtree(directory)


def known_problems(cache: Path, name: str) -> list[str] | None:
    """What probes in this boot of the host have found wrong with KVM, each once; None when there was no probe."""
    problems = set()
    probed = False
    for path in cache.glob(f"{name}-*.json"):
        try:
            record = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if record.get("host_boot") == _host_boot():
            probed = True
            problems |= {str(record["problem"])} - {""}
    return sorted(problems) if probed else None


def _beginning(file: Path) -> bytes:
    if not file.exists():
        return b""
    with file.open("rb") as opened:
        return opened.read(_LONGEST_SAID)


def _host_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

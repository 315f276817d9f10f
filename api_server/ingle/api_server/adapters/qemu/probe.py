"""Does KVM really run a guest here? Found out by booting one: /dev/kvm may open and yet be unable to.

The verdict is kept per kernel and host boot, since a new kernel or a new boot of the host can change it.
"""

import asyncio
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

from ingle.api_server.adapters.qemu import command
from ingle.api_server.host.files import write_atomically
from ingle.api_server.host.process import Process
from ingle.api_server.model.vm import Acceleration, Kernel
from ingle.api_server.ports.disk import BootConfig, BootMedia
from ingle.api_server.ports.sources import Library

_PROBE_SECONDS = 30.0
_PROBE_MEMORY = 256 * 1024 * 1024
_READY = b"ingle-agent ready"


class AccelerationProbe:
    """Probe boots with a memory."""

    def __init__(self, binary: str, kernels: Library, media: BootMedia, cache: Path) -> None:
        self._binary = binary
        self._kernels = kernels
        self._media = media
        self._cache = cache
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
        return self._cache / f"kvm-{kernel.id}.json"

    async def _boot(self, kernel: Kernel) -> str:
        directory = Path(tempfile.mkdtemp(prefix="ingle-probe-"))
        try:
            initramfs = directory / "initramfs"
            config = BootConfig(
                hostname="probe", root_device="", network=None, ready_device=command.READY_DEVICE, power_off=True
            )
            await self._media.write(kernel, config, initramfs)
            argv = [
                self._binary,
                *command.machine(Acceleration.KVM, 1, _PROBE_MEMORY),
                *command.serial("null", "file,path=ready"),
                *command.boot(
                    self._kernels.path(kernel.id) / "vmlinux",
                    initramfs,
                    command.kernel_arguments(Acceleration.KVM, 0),
                ),
            ]
            guest = Process.spawn(argv, directory=directory, stderr=directory / "stderr")
            try:
                ended = await guest.wait(_PROBE_SECONDS)
            finally:
                guest.signal(signal.SIGKILL)
                await guest.wait()
                guest.close()
            # A guest that crashes ends QEMU just as cleanly as one that powers off: only the agent's word counts.
            ready = directory / "ready"
            if ready.exists() and _READY in ready.read_bytes():
                return ""
            said = (directory / "stderr").read_text(errors="replace").strip().splitlines()
            how = "ended without booting" if ended else f"did not boot in {_PROBE_SECONDS:.0f} s"
            return f"a probe guest {how}{': ' + said[0] if said else ''}"
        finally:
            shutil.rmtree(directory)


def known_problems(cache: Path) -> list[str] | None:
    """What probes in this boot of the host have found wrong with KVM, each once; None when there was no probe."""
    problems = set()
    probed = False
    for path in cache.glob("kvm-*.json"):
        try:
            record = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if record.get("host_boot") == _host_boot():
            probed = True
            problems |= {str(record["problem"])} - {""}
    return sorted(problems) if probed else None


def _host_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

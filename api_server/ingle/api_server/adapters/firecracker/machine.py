"""What a Firecracker is told before it starts a guest: a pure function of the plan, so that a test can read it.

Paths are relative to the VM's state directory, which is Firecracker's working directory. They are part of what it saves
and then lead into the directory of whichever VM goes on: disks are links there, with the names that they have in all.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingle.api_server.adapters.firecracker.memory import Memory
from ingle.api_server.adapters.vmm.boot import INTERFACE, init_arguments
from ingle.api_server.adapters.vmm.found import process_name
from ingle.api_server.model.rates import DiskRates
from ingle.api_server.ports.engine import LaunchPlan

AGENT_PORT = 1024  # of vsock
ROOT_DEVICE = "/dev/vda"
CONSOLE_DEVICE = "/dev/ttyS0"
MODULES_DEVICE = "/dev/vdb"
DISK, MODULES = "root", "modules"
"""Links to the root disk and to that of modules, and the drives' ids."""

_DRIVE = f"/drives/{DISK}"

MOST_VCPUS = 32
_MIB = 1 << 20
_REFILL_MS = 1000
_GUEST_CID = 3  # the first one; each Firecracker has its own set of them

RUN = ("/actions", {"action_type": "InstanceStart"})
TELL_METRICS = ("/actions", {"action_type": "FlushMetrics"})


@dataclass(frozen=True, slots=True)
class Setting:
    """One that is PUT, or changed by PATCH."""

    path: str
    body: dict[str, Any]


def command(binary: str, vm_id: str, socket: str) -> list[str]:
    """Argv of a Firecracker that waits to be configured. Its own log goes to the console's, where that of errors is
    little: it would write to a file from its beginning on, whatever is there."""
    return [binary, "--id", process_name(vm_id), "--api-sock", socket, "--level", "Error"]


def kernel_arguments(*more: str) -> str:
    """The guest kernel's command line.

    `reboot=k panic=-1`: a reset by the keyboard's controller, which ends Firecracker, at shutdown and at a panic alike.
    There is no PCI and no mouse to look for. `quiet`: the serial console is the slow part of a boot."""
    arguments = ["console=ttyS0", "reboot=k", "panic=-1", "quiet", "pci=off"]
    arguments += ["i8042.noaux", "i8042.nomux", "i8042.dumbkbd", *more]
    return " ".join(arguments)


def probe(vmlinux: Path, initramfs: Path, memory_bytes: int) -> dict[str, Any]:
    """The configuration file of a machine with nothing but a console."""
    settings = {"boot-source": _boot_source(vmlinux, initramfs), "machine-config": _size(1, memory_bytes)}
    return settings | {"drives": []}


def metrics(pipe: str) -> Setting:
    """Where it tells what it counts: the name of a pipe, of which it has both ends."""
    return Setting("/metrics", {"metrics_path": pipe})


def settings(plan: LaunchPlan) -> list[Setting]:
    """All of a machine that boots, in an order that Firecracker takes."""
    source = _boot_source(plan.vmlinux, plan.paths.initramfs, *init_arguments(plan.vm))
    machine = hardware(plan)
    drive = next(each for each in machine if each.path == _DRIVE)
    drive.body["rate_limiter"] = _limiter(plan.vm.settings.disk_rates)
    return [Setting("/boot-source", source), *machine]


def hardware(plan: LaunchPlan) -> list[Setting]:
    """What the guest sees: a memory is good for the same only. How much it may take of it in a second is no part of
    that."""
    drive = {
        "drive_id": DISK,
        "path_on_host": DISK,
        "is_root_device": False,  # that would be for a kernel without an initramfs
        "is_read_only": False,
        "cache_type": "Writeback",  # what a guest flushes is on the host's disk then
    }
    modules = {"drive_id": MODULES, "path_on_host": MODULES, "is_root_device": False, "is_read_only": True}
    link = plan.link
    card = link and {"iface_id": INTERFACE, "host_dev_name": link.interface, "guest_mac": link.mac}
    return [
        size(plan),
        Setting(_DRIVE, drive),
        *([] if plan.modules_disk is None else [Setting(f"/drives/{MODULES}", modules)]),
        *([Setting(f"/network-interfaces/{INTERFACE}", card)] if card else []),
        Setting("/vsock", {"guest_cid": _GUEST_CID, "uds_path": plan.paths.agent_socket.name}),
        Setting("/balloon", {"amount_mib": 0, "deflate_on_oom": True}),
        Setting("/entropy", {}),
    ]


def limit_disk(rates: DiskRates) -> Setting:
    """What a guest that has been started, or loaded with whatever limits it was saved with, may take of its disk."""
    return Setting(_DRIVE, {"drive_id": DISK, "rate_limiter": _limiter(rates)})


def size(plan: LaunchPlan) -> Setting:
    """Processors and memory."""
    return Setting("/machine-config", _size(plan.vm.settings.vcpus, plan.vm.settings.memory_bytes))


def load(plan: LaunchPlan, memory: Memory) -> Setting:
    """Take the guest from there. It stands still."""
    body: dict[str, Any] = {
        "snapshot_path": str(memory.state),
        "mem_backend": {"backend_type": "File", "backend_path": str(memory.ram)},
        "resume_vm": False,
    }
    if plan.link is not None:
        body["network_overrides"] = [{"iface_id": INTERFACE, "host_dev_name": plan.link.interface}]
    return Setting("/snapshot/load", body)


def save(memory: Memory) -> Setting:
    """Write all of a guest that stands still."""
    body = {"snapshot_type": "Full", "snapshot_path": str(memory.state), "mem_file_path": str(memory.ram)}
    return Setting("/snapshot/create", body)


def _boot_source(vmlinux: Path, initramfs: Path, *more: str) -> dict[str, Any]:
    return {
        "kernel_image_path": str(vmlinux),
        "initrd_path": str(initramfs),
        "boot_args": kernel_arguments(*more),
    }


def _limiter(rates: DiskRates) -> dict[str, Any]:
    """Buckets that are full again after a second; one of size 0 is none."""
    sizes = {"bandwidth": rates.bytes_per_second, "ops": rates.iops}
    return {name: {"size": size, "refill_time": _REFILL_MS if size else 0} for name, size in sizes.items()}


def _size(vcpus: int, memory_bytes: int) -> dict[str, Any]:
    return {"vcpu_count": vcpus, "mem_size_mib": memory_bytes // _MIB}

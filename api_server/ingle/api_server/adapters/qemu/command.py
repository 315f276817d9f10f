"""QEMU's command line for one VM: a pure function of the plan, so that a test can read it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from ingle.api_server.adapters.qemu.usernet import forward
from ingle.api_server.adapters.vmm.boot import init_arguments
from ingle.api_server.adapters.vmm.found import process_name
from ingle.api_server.model.network import USER_NETWORK
from ingle.api_server.model.vm import Acceleration, Vm
from ingle.api_server.ports.disk import Disk, DiskFormat
from ingle.api_server.ports.engine import LaunchPlan, VmPaths
from ingle.api_server.ports.network import Link

AGENT_PORT = 1024  # of vsock
SERIAL_PORT = "ingle.agent"  # its name: a guest may have others
GUEST_ADDRESS = "10.0.2.15/24"
GUEST_GATEWAY = "10.0.2.2"
GUEST_NAMESERVER = "10.0.2.3"
GUEST_ADDRESS6 = "fec0::15/64"
GUEST_GATEWAY6 = "fec0::2"
GUEST_NAMESERVER6 = "fec0::3"
ROOT_DEVICE = "/dev/vda"
ROOT_NODE = "root"
"""QEMU's name of its disk."""

MODULES_DEVICE = "/dev/vdb"

READY_DEVICE = "/dev/ttyS1"
EMULATED_CPU = "max,erms=off,fsrm=off,la57=off"
"""All that QEMU emulates but what it does so slowly that a guest is better off without: `rep movsb` goes byte by byte,
where a kernel or C library that has not heard of its being fast takes eight at a time; page tables of five levels take
one step more for each miss."""

MEMORY = "microvm.ram"
"""As QEMU itself calls a microvm's memory, so that it can be written from one of its own and read into a file."""

_HARDWARE = frozenset({"-M", "-accel", "-cpu", "-smp", "-m", "-device"})
_DRIVERS = {DiskFormat.RAW: "raw", DiskFormat.QCOW2: "qcow2"}


def kernel_arguments(acceleration: Acceleration, tsc_khz: int, *more: str) -> str:
    """The guest kernel's command line.

    `reboot=t panic=-1`: a triple fault ends QEMU (-no-reboot) at shutdown and at a panic alike. `quiet`: the serial
    console is the slow part of a boot. Under TCG the kernel can't calibrate the TSC against the PIT and hangs in some
    boots, so it is told; and it must not check the TSC against timer interrupts, which a busy host delivers late: it
    would distrust the TSC, count interrupts instead, and lose seconds a minute."""
    arguments = ["console=ttyS0", "reboot=t", "panic=-1", "quiet", *more]
    if acceleration is Acceleration.TCG:
        arguments += [f"tsc_early_khz={tsc_khz}", "tsc=nowatchdog"]
    return " ".join(arguments)


def machine(acceleration: Acceleration, vcpus: int, memory_bytes: int) -> list[str]:
    """Machine, CPU and memory: what a probe boot shares with every VM."""
    kvm = acceleration is Acceleration.KVM
    return [
        *("-M", "microvm,x-option-roms=off,rtc=on,acpi=on"),
        *("-accel", "kvm" if kvm else "tcg,thread=multi"),
        *("-cpu", "host" if kvm else EMULATED_CPU),
        *("-smp", str(vcpus)),
        *("-m", f"{memory_bytes // 1024}k"),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    ]


def boot(vmlinux: Path, initramfs: Path, arguments: str) -> list[str]:
    """Direct kernel boot."""
    return ["-kernel", str(vmlinux), "-initrd", str(initramfs), "-append", arguments]


def serial(console: str, ready: str) -> list[str]:
    """Two serial ports: the console, and the one on which the agent says that it listens."""
    return [
        *("-chardev", f"{console},id=console", "-device", "isa-serial,chardev=console,index=0"),
        *("-chardev", f"{ready},id=ready", "-device", "isa-serial,chardev=ready,index=1"),
    ]


def vsock_cid(vm_id: str) -> int:
    """The VM's vsock address: a function of its id, so that it need not be stored. 0 to 2 and 2**32 - 1 are reserved,
    see vsock(7)."""
    return 3 + int(vm_id, 16) % (2**32 - 4)


def launch(
    binary: str,
    plan: LaunchPlan,
    *,
    control_fd: int,
    ready_fd: int | None,
    agent_fd: int | None,
    tsc_khz: int,
    ipv6: bool = False,
    ram: Path | None = None,
) -> list[str]:
    """The whole argv of a VM's QEMU, stopped before its first instruction (-S), or waiting for the memory it has in
    `plan`, whose guest has been ready for long, and which it is to map where that is in a file, `ram`.

    The sockets are made by us and handed over open: connecting never has to wait for QEMU, and no path limit of its
    own applies. The agent is behind a virtio-serial port whose other end is `agent_fd`, or where that is None on
    vsock. Paths in chardevs are relative to the VM's state directory, which is QEMU's working
    directory: nothing needs escaping."""
    if plan.memory is None:
        arguments = kernel_arguments(plan.acceleration, tsc_khz, *init_arguments(plan.vm))
        beginning = boot(plan.vmlinux, plan.paths.initramfs, arguments)
    else:
        mapped = [] if ram is None else _map(ram, plan.vm.settings.memory_bytes)
        beginning = [*mapped, *_GOES_ON]
    storage = "host_device" if plan.root_disk.is_block else "file"
    disk = {
        "driver": _DRIVERS[plan.root_disk.format],
        "node-name": ROOT_NODE,
        "discard": "unmap",
        "file": {"driver": storage, "filename": str(plan.root_disk.path), "discard": "unmap"},
    }
    ready = "null" if ready_fd is None else f"socket,fd={ready_fd}"
    return [
        *_vmm(binary, plan, control_fd),
        *beginning,
        *serial(f"file,path={plan.paths.console_log.name},append=on", ready),
        *_network(plan, ipv6=ipv6),
        *_agent(plan.vm.id, agent_fd),
        *_disk(disk),
        *_modules(plan.modules_disk),
    ]


def hardware(vm: Vm, acceleration: Acceleration, *, on_vsock: bool, modules_disk: bool) -> list[str]:
    """What the guest sees: a memory is good for the same only. Nothing of it is this VM's alone."""
    link = None if vm.settings.network == USER_NETWORK else Link("", "", "", 0, "")
    of_none = replace(vm, id="0" * len(vm.id))
    nowhere = Path()
    disk = Disk(nowhere, DiskFormat.RAW)
    modules = nowhere if modules_disk else None
    plan = LaunchPlan(of_none, VmPaths(nowhere, nowhere), nowhere, disk, acceleration, b"", link, modules_disk=modules)
    agent_fd = None if on_vsock else 0
    arguments = launch("", plan, control_fd=0, ready_fd=None, agent_fd=agent_fd, tsc_khz=0)
    return [f"{option} {value}" for option, value in pairwise(arguments) if option in _HARDWARE]


# Who goes on from a memory is told by us whom to greet. QEMU 7.2 crashes when a device that has been told to announce
# nothing is reset, as a guest does that powers off.
_NET_DEVICE = "virtio-net-device,netdev=net,guest_announce=off"

_GOES_ON = ("-incoming", "defer")  # and neither kernel nor initramfs: they are in the memory


def _vmm(binary: str, plan: LaunchPlan, control_fd: int) -> list[str]:
    return [
        binary,
        *("-name", process_name(plan.vm.id)),
        *machine(plan.acceleration, plan.vm.settings.vcpus, plan.vm.settings.memory_bytes),
        "-S",
        *("-chardev", f"socket,id=control,fd={control_fd},server=on,wait=off"),
        *("-mon", "chardev=control,mode=control"),
    ]


def _map(
    file: Path,
    size: int,
) -> list[str]:
    """Memory is a file. A private mapping changes nothing of it; but a balloon would: up to QEMU 8 it gives back a page
    by a hole in the file."""
    backend = {
        "qom-type": "memory-backend-file",
        "id": MEMORY,
        "size": size,
        "mem-path": str(file),
        "share": False,
    }
    return ["-object", json.dumps(backend), "-machine", f"memory-backend={MEMORY}"]


def _disk(backend: Mapping[str, object]) -> list[str]:
    return ["-blockdev", json.dumps(backend), "-device", "virtio-blk-device,drive=root"]


def _modules(disk: Path | None) -> list[str]:
    """Behind the root disk, which so has its name whether or not this one is there."""
    if disk is None:
        return []
    backend = {
        "driver": "raw",
        "node-name": "modules",
        "read-only": True,
        "file": {"driver": "file", "filename": str(disk), "read-only": True},
    }
    return ["-blockdev", json.dumps(backend), "-device", "virtio-blk-device,drive=modules"]


def _agent(vm_id: str, agent_fd: int | None) -> list[str]:
    if agent_fd is None:
        return ["-device", f"vhost-vsock-device,guest-cid={vsock_cid(vm_id)}"]
    return [
        *("-chardev", f"socket,id=agent,fd={agent_fd},server=on,wait=off"),
        *("-device", "virtio-serial-device"),
        *("-device", f"virtserialport,chardev=agent,name={SERIAL_PORT}"),
    ]


def _network(plan: LaunchPlan, *, ipv6: bool) -> list[str]:
    """QEMU's nameserver passes questions on to one of the host's of the same family: so a guest has IPv6 where the host
    asks nobody by IPv4. Elsewhere it would try addresses that the host may not reach. IPv4 is off where only IPv6 is
    said to be on."""
    if plan.link is not None:
        return [
            *("-netdev", f"tap,id=net,ifname={plan.link.interface},script=no,downscript=no"),
            *("-device", f"{_NET_DEVICE},mac={plan.link.mac}"),
        ]
    published = (f"hostfwd={forward(port)}" for port in plan.vm.settings.ports)
    return [
        *("-netdev", ",".join((f"user,id=net,ipv4=on,ipv6={'on' if ipv6 else 'off'}", *published))),
        *("-device", _NET_DEVICE),
    ]

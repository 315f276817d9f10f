"""QEMU's command line for one VM: a pure function of the plan, so that a test can read it."""

import json
from pathlib import Path

from ingle.api_server.model.vm import Acceleration, Init
from ingle.api_server.ports.engine import LaunchPlan

AGENT_PORT = 1024
GUEST_ADDRESS = "10.0.2.15/24"
GUEST_GATEWAY = "10.0.2.2"
GUEST_NAMESERVER = "10.0.2.3"
GUEST_ADDRESS6 = "fec0::15/64"
GUEST_GATEWAY6 = "fec0::2"
GUEST_NAMESERVER6 = "fec0::3"
ROOT_DEVICE = "/dev/vda"
READY_DEVICE = "/dev/ttyS1"
EMULATED_CPU = "max,erms=off,fsrm=off,la57=off"
"""All that QEMU emulates but what it does so slowly that a guest is better off without: `rep movsb` goes byte by byte,
where a kernel or C library that has not heard of its being fast takes eight at a time; page tables of five levels take
one step more for each miss."""


def process_name(vm_id: str) -> str:
    """The value of -name, by which a VMM is found again when nobody wrote its pid down."""
    return f"ingle-{vm_id}"


def kernel_arguments(acceleration: Acceleration, tsc_khz: int, *, image_init: bool = False) -> str:
    """The guest kernel's command line.

    `reboot=t panic=-1`: a triple fault ends QEMU (-no-reboot) at shutdown and at a panic alike. `quiet`: the serial
    console is the slow part of a boot. Under TCG the kernel can't calibrate the TSC against the PIT and hangs in some
    boots, so it is told; and it must not check the TSC against timer interrupts, which a busy host delivers late: it
    would distrust the TSC, count interrupts instead, and lose seconds a minute. An image's own udev must not rename the
    interface that the agent knows, nor its systemd wait for somebody to log in on a console that nobody can type on."""
    arguments = ["console=ttyS0", "reboot=t", "panic=-1", "quiet"]
    if image_init:
        arguments += ["net.ifnames=0", "systemd.getty_auto=no"]
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
    ready_fd: int,
    tsc_khz: int,
    vsock: bool = False,
    ipv6: bool = False,
) -> list[str]:
    """The whole argv of a VM's QEMU, stopped before its first instruction (-S).

    The sockets are made by us and handed over open: connecting never has to wait for QEMU, and no path limit of its
    own applies. Without vsock the agent is behind a loopback port; port 0 lets the kernel pick a free one, so two VMs
    can never want the same. Paths in chardevs are relative to the VM's state directory, which is QEMU's working
    directory: nothing needs escaping."""
    arguments = kernel_arguments(plan.acceleration, tsc_khz, image_init=plan.vm.init is Init.IMAGE)
    cid = vsock_cid(plan.vm.id)
    # A block device is told from a file by its name, which has no suffix: see ports.disk and ports.devices.
    storage = "file" if plan.root_disk.suffix else "host_device"
    disk = {
        "driver": "qcow2" if plan.root_disk.suffix == ".qcow2" else "raw",
        "node-name": "root",
        "discard": "unmap",
        "file": {"driver": storage, "filename": str(plan.root_disk), "discard": "unmap"},
    }
    return [
        binary,
        *("-name", process_name(plan.vm.id)),
        *machine(plan.acceleration, plan.vm.vcpus, plan.vm.memory_bytes),
        "-S",
        *("-chardev", f"socket,id=control,fd={control_fd},server=on,wait=off"),
        *("-mon", "chardev=control,mode=control"),
        *serial(f"file,path={plan.paths.console_log.name},append=on", f"socket,fd={ready_fd}"),
        *boot(plan.vmlinux, plan.paths.initramfs, arguments),
        *_network(plan, vsock=vsock, ipv6=ipv6),
        *(("-device", f"vhost-vsock-device,guest-cid={cid}") if vsock else ()),
        *("-blockdev", json.dumps(disk)),
        *("-device", "virtio-blk-device,drive=root"),
    ]


def _network(plan: LaunchPlan, *, vsock: bool, ipv6: bool) -> list[str]:
    """QEMU's nameserver passes questions on to one of the host's of the same family: so a guest has IPv6 where the host
    asks nobody by IPv4. Elsewhere it would try addresses that the host may not reach. IPv4 is off where only IPv6 is
    said to be on."""
    if plan.link is not None:
        return [
            *("-netdev", f"tap,id=net,ifname={plan.link.interface},script=no,downscript=no"),
            *("-device", f"virtio-net-device,netdev=net,mac={plan.link.mac}"),
        ]
    agent = () if vsock else (f"hostfwd=tcp:127.0.0.1:0-:{AGENT_PORT}",)
    published = (
        f"hostfwd={port.protocol.value}:{port.address}:{port.host_port}-:{port.vm_port}" for port in plan.vm.ports
    )
    return [
        *("-netdev", ",".join((f"user,id=net,ipv4=on,ipv6={'on' if ipv6 else 'off'}", *agent, *published))),
        *("-device", "virtio-net-device,netdev=net"),
    ]

"""What a caller wants a VM to be, and the rules it must keep. All of them are checked here and nowhere else."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.ids import NAME_RULE, RESERVED_NAMES, is_dns_label, is_vm_id, looks_like_catalog_id
from ingle.api_server.model.network import PublishedPort, check_nat, check_network, check_ports
from ingle.api_server.model.ssh_keys import check_ssh_keys
from ingle.api_server.model.vm import Acceleration, Image, Init, Kernel, Vm

MIB = 1024 * 1024
GIB = 1024 * MIB
LEAST_MEMORY = 64 * MIB
_BESIDE_KERNEL = 40 * MIB
MOST_DISK = 16 * 1024 * GIB  # ext4 with 4 KiB blocks and 32-bit block numbers; see ext4(5)
SECTOR = 512

DISK_BACKENDS = ("qcow2", "reflink", "dm-snapshot", "copy")

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]{0,127}(:[A-Za-z0-9._-]{1,64})?")


@dataclass(frozen=True, slots=True)
class HostLimits:
    """What the host has to give."""

    vcpus: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a VM gets when nobody says otherwise."""

    image: str = "debian:bookworm"
    kernel: str = "debian"
    vcpus: int = 1
    memory_bytes: int = 512 * MIB
    disk_bytes: int = 8 * GIB
    acceleration: Acceleration = Acceleration.AUTO
    disk_backend: str = ""
    network: str = ""
    domain: str = "vm"
    """What names of VMs end with in a shared network's DNS."""


@dataclass(frozen=True, slots=True)
class VmSpec:
    """A wish: None and empty mean the default."""

    name: str = ""
    image: str = ""
    kernel: str = ""
    vcpus: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    acceleration: Acceleration | None = None
    disk_backend: str = ""
    ports: tuple[PublishedPort, ...] = ()
    network: str = ""
    nat: bool | None = None
    init: Init = Init.AGENT
    ssh_keys: tuple[str, ...] = ()

    def checked(self, limits: HostLimits) -> "VmSpec":
        """This spec, when a host with `limits` could run it. Raises InvalidArgument."""
        if self.name:
            check_name(self.name)
        if self.vcpus is not None and not 1 <= self.vcpus <= limits.vcpus:
            raise InvalidArgument(
                f"vcpu {self.vcpus}: this host allows 1 to {limits.vcpus}",
                f"--vcpu {_closest(self.vcpus, 1, limits.vcpus)}",
            )
        if self.memory_bytes is not None and not LEAST_MEMORY <= self.memory_bytes <= limits.memory_bytes:
            raise InvalidArgument(
                f"memory {size_text(self.memory_bytes)}: this host allows 64 MiB to {size_text(limits.memory_bytes)}",
                f"--memory {_closest(self.memory_bytes, LEAST_MEMORY, limits.memory_bytes) // MIB}M",
            )
        if self.disk_bytes is not None and not 0 < self.disk_bytes <= MOST_DISK:
            raise InvalidArgument(
                f"disk size {size_text(self.disk_bytes)}: 1 byte to {size_text(MOST_DISK)} is allowed",
                "--disk-size 16T" if self.disk_bytes else "--disk-size 8G",
            )
        check_env(self.env)
        check_ports(self.ports, self.network)
        if self.network:
            check_network(self.network)
            check_nat(self.network, self.nat)
        check_ssh_keys(self.ssh_keys)
        if self.disk_backend and self.disk_backend not in DISK_BACKENDS:
            raise InvalidArgument(f"disk backend {self.disk_backend!r}: one of {', '.join(DISK_BACKENDS)} is allowed")
        return self

    def with_defaults(self, defaults: Defaults) -> "VmSpec":
        """The same with nothing left open but the name."""
        return replace(
            self,
            image=self.image or defaults.image,
            kernel=self.kernel or defaults.kernel,
            vcpus=defaults.vcpus if self.vcpus is None else self.vcpus,
            memory_bytes=defaults.memory_bytes if self.memory_bytes is None else self.memory_bytes,
            disk_bytes=defaults.disk_bytes if self.disk_bytes is None else self.disk_bytes,
            acceleration=self.acceleration or defaults.acceleration,
            disk_backend=self.disk_backend or defaults.disk_backend,
            network=self.network or defaults.network,
        )


@dataclass(frozen=True, slots=True)
class VmChange:
    """What shall be changed of a VM; None leaves it as it is."""

    name: str | None = None
    vcpus: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    nat: bool | None = None

    @property
    def needs_stopped(self) -> bool:
        """Whether a running VM can't take it."""
        return any(value is not None for value in (self.vcpus, self.memory_bytes, self.disk_bytes))

    def applied(self, vm: Vm) -> Vm:
        """The VM with the change."""
        return replace(
            vm,
            name=vm.name if self.name is None else self.name,
            vcpus=vm.vcpus if self.vcpus is None else self.vcpus,
            memory_bytes=vm.memory_bytes if self.memory_bytes is None else self.memory_bytes,
            disk_bytes=vm.disk_bytes if self.disk_bytes is None else whole_sectors(self.disk_bytes),
            nat=vm.nat if self.nat is None else self.nat,
        )


def check_name(name: str) -> None:
    """Raise InvalidArgument unless `name` can name a VM."""
    if name in RESERVED_NAMES:
        raise InvalidArgument(f"name {name!r}: it has a meaning of its own in every guest's /etc/hosts", "--name my-vm")
    if not is_dns_label(name):
        raise InvalidArgument(f"name {name!r}: a VM's name is a DNS label, {NAME_RULE}", "--name my-vm")
    if is_vm_id(name):
        raise InvalidArgument(f"name {name!r}: 12 hex digits are the id of a VM, and can't be a name", "--name my-vm")


def check_catalog_name(name: str, what: str) -> None:
    """Raise InvalidArgument unless `name` can name an image or kernel (`what` says which)."""
    if not _IMAGE_NAME.fullmatch(name):
        raise InvalidArgument(
            f"{what} name {name[:100]!r}: a-z, 0-9, '.', '_', '-' and '/', then perhaps ':TAG', is allowed",
            f"use something like my-{what}:v1",
        )
    if looks_like_catalog_id(name):
        raise InvalidArgument(
            f"{what} name {name!r}: 12 hex digits or more are an id, and can't be a name",
            f"use something like my-{what}:v1",
        )


def check_env(env: Mapping[str, str]) -> None:
    """Raise InvalidArgument unless every variable could be set by a shell."""
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name):
            raise InvalidArgument(
                f"environment variable {name!r}: letters, digits and '_' are allowed", "-e NAME=value"
            )
        if "\0" in value:
            raise InvalidArgument(f"environment variable {name}: a value can't hold a NUL byte")


def check_disk_holds(disk_bytes: int, image: Image) -> None:
    """Raise InvalidArgument when `image` is larger than a disk of `disk_bytes`."""
    if disk_bytes < image.size_bytes:
        name, least = image.names[0] if image.names else image.id[:12], size_text(image.size_bytes)
        raise InvalidArgument(
            f"disk size {size_text(disk_bytes)}: image {name} needs {least}",
            f"--disk-size {-(-image.size_bytes // MIB)}M or more",
        )


def least_memory(kernel: Kernel) -> int:
    """What a guest with `kernel` boots in. All of it is in memory, with its modules; beside it the initramfs, twice
    while that is unpacked, and what the kernel needs to work. Debian's of 51 MiB panics in 72 MiB and boots in 80, with
    one processor as with two: the least has something left over."""
    return -(-(kernel.size_bytes + _BESIDE_KERNEL) // (16 * MIB)) * 16 * MIB


def check_memory_holds(memory_bytes: int, kernel: Kernel, remedy: str = "--memory") -> None:
    """Raise InvalidArgument when a guest with `kernel` would panic in so little; `remedy` goes before the least."""
    least = max(LEAST_MEMORY, least_memory(kernel))
    if memory_bytes < least:
        name = kernel.names[0] if kernel.names else kernel.id[:12]
        raise InvalidArgument(
            f"memory {size_text(memory_bytes)}: kernel {name} needs at least {size_text(least)}",
            f"{remedy} {least // MIB}M",
        )


def whole_sectors(size: int) -> int:
    """`size` rounded up to what a block device can have."""
    return -(-size // SECTOR) * SECTOR


def size_text(size: int) -> str:
    """For messages, in the unit that fits: 512 MiB, 1.50 GiB, 17 bytes."""
    unit, name = 1, "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if size < unit * 1024:
            break
        unit, name = unit * 1024, larger
    return f"{size // unit} {name}" if size % unit == 0 else f"{size / unit:.2f} {name}"


def _closest(wish: int, least: int, most: int) -> int:
    """What is allowed and comes closest."""
    return min(max(wish, least), most)

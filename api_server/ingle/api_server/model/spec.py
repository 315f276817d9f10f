"""What a caller wants a VM to be, and the rules it must keep. All of them are checked here and nowhere else."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum

from ingle.api_server.model.auto_start import NOT_STARTED, check_auto_start
from ingle.api_server.model.environment import check_env, check_env_size
from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.healthcheck import check_healthcheck, settled
from ingle.api_server.model.idleness import NEVER, check_after
from ingle.api_server.model.ids import NAME_RULE, RESERVED_NAMES, is_dns_label, is_vm_id, looks_like_catalog_id
from ingle.api_server.model.image_config import Healthcheck
from ingle.api_server.model.labels import check_labels
from ingle.api_server.model.network import (
    USER_NETWORK,
    PublishedPort,
    check_nat,
    check_net_rate,
    check_network,
    check_ports,
)
from ingle.api_server.model.rates import RULES, UNLIMITED, check_rate
from ingle.api_server.model.ssh_keys import check_ssh_keys
from ingle.api_server.model.vm import Acceleration, BootMode, Image, Init, Kernel, Vm, VmSettings
from ingle.api_server.model.workload import Workload

MIB = 1024 * 1024
GIB = 1024 * MIB
LEAST_MEMORY = 64 * MIB
_BESIDE_KERNEL = 40 * MIB
MOST_DISK = 16 * 1024 * GIB  # ext4 with 4 KiB blocks and 32-bit block numbers; see ext4(5)
SECTOR = 512

ANY_ENGINE = "auto"
"""The wish for the best one that works."""

DISK_BACKENDS = ("qcow2", "reflink", "dm-snapshot", "copy")

_DEFAULTED = frozenset(
    (
        "image",
        "kernel",
        "vcpus",
        "memory_bytes",
        "disk_bytes",
        "acceleration",
        "engine",
        "disk_backend",
        "network",
        *RULES,
    )
)
_SHOWN_ID = 12
_IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]{0,127}(:[A-Za-z0-9._-]{1,64})?")


@dataclass(frozen=True, slots=True)
class HostLimits:
    """What the host has to give."""

    vcpus: int
    memory_bytes: int


class Overcommit(Enum):
    """What becomes of a disk when VMs could then write more than there is room for."""

    ALLOW = "allow"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a VM gets when nobody says otherwise, and what it takes to make one."""

    image: str = "debian:bookworm"
    kernel: str = "debian"
    vcpus: int = 1
    memory_bytes: int = 512 * MIB
    disk_bytes: int = 8 * GIB
    acceleration: Acceleration = Acceleration.AUTO
    engine: str = ANY_ENGINE
    disk_backend: str = ""
    network: str = ""
    domain: str = "vm"
    """What names of VMs end with in a shared network's DNS."""

    disk_floor_bytes: int = 64 * MIB
    """What must be free where disks are for a VM to be made, started or grown."""

    disk_overcommit: Overcommit = Overcommit.WARN
    warm: bool = True
    """Whether VMs begin with the memory of guests that have booted, and such memories are made by themselves."""

    warm_cache_bytes: int = 2 * GIB
    """What those may take together; with 0 none is made by itself."""

    layer_cache_bytes: int = 20 * GIB
    """What layers of images may take that are kept for the next image; with 0 none is."""

    isolate: bool = True
    """Whether each VMM has namespaces of its own, where the host lets it."""

    firecracker: str = "firecracker"
    """The program: a name that is looked for, or a path."""

    disk_iops: int = UNLIMITED
    disk_bytes_per_second: int = UNLIMITED
    net_bytes_per_second: int = UNLIMITED


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
    engine: str = ""
    disk_backend: str = ""
    ports: tuple[PublishedPort, ...] = ()
    network: str = ""
    nat: bool | None = None
    init: Init = Init.AGENT
    ssh_keys: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    boot_mode: BootMode = BootMode.AUTO
    pause_after: int | None = None
    hibernate_after: int | None = None
    delete_after: int | None = None
    keep_awake: bool | None = None
    wake_by_name: bool | None = None
    disk_iops: int | None = None
    disk_bytes_per_second: int | None = None
    net_bytes_per_second: int | None = None
    auto_start: int | None = None
    healthcheck: Healthcheck | None = None

    def check(self, limits: HostLimits, least_memory: int = LEAST_MEMORY) -> None:
        """Raise InvalidArgument unless a host with `limits` could run it; its kernel, where that is known, boots in
        `least_memory`."""
        if self.name:
            check_name(self.name)
        if self.vcpus is not None and not 1 <= self.vcpus <= limits.vcpus:
            raise InvalidArgument(
                f"vcpu {self.vcpus}: this host allows 1 to {limits.vcpus}",
                f"--vcpu {_closest(self.vcpus, 1, limits.vcpus)}",
                field="vcpus",
            )
        if self.memory_bytes is not None and not LEAST_MEMORY <= self.memory_bytes <= limits.memory_bytes:
            raise InvalidArgument(
                f"memory {size_text(self.memory_bytes)}: this host allows 64 MiB to {size_text(limits.memory_bytes)}",
                f"--memory {_closest(self.memory_bytes, least_memory, limits.memory_bytes) // MIB}M",
                field="memory_bytes",
            )
        if self.disk_bytes is not None and not 0 < self.disk_bytes <= MOST_DISK:
            raise InvalidArgument(
                f"disk size {size_text(self.disk_bytes)}: 1 byte to {size_text(MOST_DISK)} is allowed",
                "--disk-size 16T" if self.disk_bytes else "--disk-size 8G",
                field="disk_bytes",
            )
        check_env(self.env)
        check_env_size(self.env)
        if self.network:
            check_network(self.network)
        check_connection(self, self.network)
        check_ssh_keys(self.ssh_keys)
        check_labels(self.labels)
        for name in ("pause_after", "hibernate_after", "delete_after"):
            check_after(getattr(self, name), name)
        for name in RULES:
            check_rate(getattr(self, name), name)
        check_auto_start(self.auto_start)
        if self.healthcheck is not None:
            check_healthcheck(self.healthcheck)
        if self.disk_backend and self.disk_backend not in DISK_BACKENDS:
            raise InvalidArgument(
                f"disk backend {self.disk_backend!r}: one of {', '.join(DISK_BACKENDS)} is allowed",
                field="disk_backend",
            )

    def with_defaults(self, defaults: Defaults) -> "CompleteSpec":
        """The same with nothing left open but the name, and what is found out about the host."""
        wishes = {each.name: getattr(self, each.name) for each in fields(VmSpec)}
        for name in _DEFAULTED:
            if wishes[name] in (None, ""):
                wishes[name] = getattr(defaults, name)
        return CompleteSpec(**wishes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteSpec(VmSpec):
    """A wish with its defaults."""

    vcpus: int
    memory_bytes: int
    disk_bytes: int
    acceleration: Acceleration
    disk_iops: int
    disk_bytes_per_second: int
    net_bytes_per_second: int

    def settings(self, image: Image, kernel: Kernel, *, engine: str, disk_backend: str, network: str) -> VmSettings:
        """What a VM is that has its wish, made of these."""
        return VmSettings(
            image_id=image.id,
            image_name=_name(self.image, image),
            kernel_id=kernel.id,
            kernel_name=_name(self.kernel, kernel),
            engine=engine,
            acceleration=self.acceleration,
            disk_backend=disk_backend,
            vcpus=self.vcpus,
            memory_bytes=self.memory_bytes,
            disk_bytes=whole_sectors(self.disk_bytes),
            env=self.env,
            ports=self.ports,
            network=network,
            nat=network == USER_NETWORK if self.nat is None else self.nat,
            init=self.init,
            ssh_keys=self.ssh_keys,
            labels=self.labels,
            pause_after=self.pause_after or NEVER,
            hibernate_after=self.hibernate_after or NEVER,
            delete_after=self.delete_after or NEVER,
            keep_awake=bool(self.keep_awake),
            wake_by_name=self.wake_by_name is not False,
            disk_iops=self.disk_iops,
            disk_bytes_per_second=self.disk_bytes_per_second,
            net_bytes_per_second=self.net_bytes_per_second,
            auto_start=self.auto_start or NOT_STARTED,
            workload=Workload.of(image.config),
            healthcheck=settled(self.healthcheck, None if image.config is None else image.config.healthcheck),
        )


@dataclass(frozen=True, slots=True)
class VmChange:
    """What shall be changed of a VM; None leaves it as it is."""

    name: str | None = None
    vcpus: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    nat: bool | None = None
    labels: Mapping[str, str] | None = None
    pause_after: int | None = None
    hibernate_after: int | None = None
    delete_after: int | None = None
    keep_awake: bool | None = None
    wake_by_name: bool | None = None
    disk_iops: int | None = None
    disk_bytes_per_second: int | None = None
    net_bytes_per_second: int | None = None
    auto_start: int | None = None
    expected_generation: int | None = None
    """Of the VM that is meant; None: whichever it has."""

    @property
    def needs_stopped(self) -> bool:
        """Whether a running VM can't take it."""
        return any(value is not None for value in (self.vcpus, self.memory_bytes, self.disk_bytes))

    def applied(self, vm: Vm) -> Vm:
        """The VM with the change."""
        given = {name: value for name in _CHANGEABLE if (value := getattr(self, name)) is not None}
        if self.disk_bytes is not None:
            given["disk_bytes"] = whole_sectors(self.disk_bytes)
        return replace(
            vm,
            name=vm.name if self.name is None else self.name,
            generation=vm.generation + 1,
            settings=replace(vm.settings, **given),
        )


_CHANGEABLE = frozenset(each.name for each in fields(VmChange)) & frozenset(each.name for each in fields(VmSettings))


def check_name(name: str) -> None:
    """Raise InvalidArgument unless `name` can name a VM."""
    if name in RESERVED_NAMES:
        raise InvalidArgument(
            f"name {name!r}: it has a meaning of its own in every guest's /etc/hosts", "--name my-vm", field="name"
        )
    if not is_dns_label(name):
        raise InvalidArgument(f"name {name!r}: a VM's name is a DNS label, {NAME_RULE}", "--name my-vm", field="name")
    if is_vm_id(name):
        raise InvalidArgument(
            f"name {name!r}: 12 hex digits are the id of a VM, and can't be a name", "--name my-vm", field="name"
        )


def check_catalog_name(name: str, what: str) -> None:
    """Raise InvalidArgument unless `name` can name an image or kernel (`what` says which)."""
    if not _IMAGE_NAME.fullmatch(name):
        raise InvalidArgument(
            f"{what} name {name[:100]!r}: a-z, 0-9, '.', '_', '-' and '/', then perhaps ':TAG', is allowed",
            f"use something like my-{what}:v1",
            field="name",
        )
    if looks_like_catalog_id(name):
        raise InvalidArgument(
            f"{what} name {name!r}: 12 hex digits or more are an id, and can't be a name",
            f"use something like my-{what}:v1",
            field="name",
        )


def check_connection(spec: VmSpec, network: str) -> None:
    """Raise InvalidArgument for what a VM in `network` (empty: wherever it comes to be) can't have."""
    check_ports(spec.ports, network)
    check_nat(network, spec.nat)
    check_net_rate(network, spec.net_bytes_per_second)


def check_disk_holds(disk_bytes: int, image: Image) -> None:
    """Raise InvalidArgument when `image` is larger than a disk of `disk_bytes`."""
    if disk_bytes < image.size_bytes:
        name, least = image.names[0] if image.names else image.id[:12], size_text(image.size_bytes)
        raise InvalidArgument(
            f"disk size {size_text(disk_bytes)}: image {name} needs {least}",
            f"--disk-size {-(-image.size_bytes // MIB)}M or more",
            field="disk_bytes",
        )


def least_memory(kernel: Kernel) -> int:
    """What a guest with `kernel` boots in. All of it is in memory, with some modules; beside it the initramfs, twice
    while that is unpacked, and what the kernel needs to work. Debian's of 51 MiB panics in 72 MiB and boots in 80, with
    one processor as with two: the least has something left over."""
    return max(LEAST_MEMORY, -(-(kernel.loaded_bytes + _BESIDE_KERNEL) // (16 * MIB)) * 16 * MIB)


def check_memory_holds(memory_bytes: int, kernel: Kernel, remedy: str = "--memory") -> None:
    """Raise InvalidArgument when a guest with `kernel` would panic in so little; `remedy` goes before the least."""
    least = least_memory(kernel)
    if memory_bytes < least:
        name = kernel.names[0] if kernel.names else kernel.id[:12]
        raise InvalidArgument(
            f"memory {size_text(memory_bytes)}: kernel {name} needs at least {size_text(least)}",
            f"{remedy} {least // MIB}M",
            field="memory_bytes",
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


def _name(reference: str, item: Image | Kernel) -> str:
    """What people read: who gave an id, or another name that a registry has for it, gets the name that it has here."""
    if reference in item.names:
        return reference
    return item.names[0] if item.names else item.id[:_SHOWN_ID]

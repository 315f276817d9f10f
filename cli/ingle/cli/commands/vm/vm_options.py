"""What a new VM can be asked to be: the options that `ingle vm create` and `ingle vm run` share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import typer

from ingle.cli import completion
from ingle.cli.client import duration
from ingle.cli.options import (
    Count,
    Environment,
    EnvironmentFiles,
    Publish,
    Size,
    Span,
    as_option,
    parse_count_or_none,
    parse_published,
    read_environment,
    read_public_keys,
)
from ingle.cli.quantities import parse_duration_or_never, parse_size_or_none, parse_turn
from ingle.v1 import healthcheck_pb2, vm_pb2


class Acceleration(StrEnum):
    """--accel."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class DiskBackend(StrEnum):
    """--disk-backend."""

    QCOW2 = "qcow2"
    REFLINK = "reflink"
    DM_SNAPSHOT = "dm-snapshot"
    COPY = "copy"


class Init(StrEnum):
    """--init."""

    AGENT = "agent"
    IMAGE = "image"


class BootMode(StrEnum):
    """--boot."""

    AUTO = "auto"
    WARM = "warm"
    COLD = "cold"


Name = Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="A DNS label; made up unless given.")]
Image = Annotated[
    str,
    typer.Option(
        "--image",
        metavar="IMAGE",
        help="Name, id, or [HOST/]REPOSITORY[:TAG] in a registry, which is pulled; debian:bookworm unless configured.",
        autocompletion=completion.image_names,
    ),
]
Kernel = Annotated[
    str,
    typer.Option(
        "--kernel",
        metavar="KERNEL",
        help="Name or id; debian unless configured, or the image asks for another.",
        autocompletion=completion.kernel_names,
    ),
]
Vcpus = Annotated[
    int | None, typer.Option("--vcpu", metavar="N", parser=Count, help="1 to the host's; 1 unless configured.")
]
Memory = Annotated[
    int | None, typer.Option("--memory", "-m", metavar="SIZE", parser=Size, help="E.g. 2G; 512M unless configured.")
]
DiskSize = Annotated[
    int | None,
    typer.Option(
        "--disk-size", metavar="SIZE", parser=Size, help="At least the image's, e.g. 10G; 8G unless configured."
    ),
]
Accel = Annotated[
    Acceleration | None, typer.Option("--accel", help="auto, unless given: whichever a probe boot shows to work.")
]
PidOne = Annotated[
    Init | None,
    typer.Option(
        "--init", help="PID 1: the agent, or the image's own init (systemd, ...) with it beside; agent unless given."
    ),
]
Boot = Annotated[
    BootMode | None,
    typer.Option(
        "--boot",
        help="warm: from the memory of a guest that has booted; cold: boot; auto, unless given: warm where it can.",
    ),
]
SshKeys = Annotated[
    list[str],
    typer.Option("--ssh-key", metavar="FILE", help="Public key of who may come in as root by ssh (repeatable)."),
]
Labels = Annotated[
    list[str],
    typer.Option("--label", "-l", metavar="KEY[=VALUE]", help="Write it on the VM, to find it again (repeatable)."),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="What runs it, for all its life: auto, or one of `ingle server status`.",
    ),
]
Backend = Annotated[DiskBackend | None, typer.Option("--disk-backend", help="The best that works here, unless given.")]


Network = Annotated[
    str,
    typer.Option(
        "--network",
        metavar="NAME",
        help="VMs of one network reach each other; user: a network of its own. default, where a system install is.",
    ),
]
Nat = Annotated[bool, typer.Option("--nat", help="Let it reach what is beyond its network.")]


PauseAfter = Annotated[
    timedelta | None,
    typer.Option(
        "--pause-after",
        metavar="DURATION|never",
        parser=as_option(parse_duration_or_never),
        help="Pause it once nobody has used it for e.g. 30m; never unless given.",
    ),
]
HibernateAfter = Annotated[
    timedelta | None,
    typer.Option(
        "--hibernate-after",
        metavar="DURATION|never",
        parser=as_option(parse_duration_or_never),
        help="Hibernate it once nobody has used it for e.g. 30m; never unless given.",
    ),
]
DeleteAfter = Annotated[
    timedelta | None,
    typer.Option(
        "--delete-after",
        metavar="DURATION|never",
        parser=as_option(parse_duration_or_never),
        help="Delete it once nobody has used it for e.g. 30m; never unless given.",
    ),
]
KeepAwake = Annotated[
    bool | None,
    typer.Option(
        "--keep-awake/--let-sleep", help="Neither pause nor hibernate it for want of use.", show_default=False
    ),
]

WakeByName = Annotated[
    bool | None,
    typer.Option(
        "--wake-by-name/--no-wake-by-name",
        help="Whether a VM of its network that asks DNS for it wakes it; it does, unless told.",
        show_default=False,
    ),
]


DiskIops = Annotated[
    int | None,
    typer.Option(
        "--disk-iops",
        metavar="N|none",
        parser=as_option(parse_count_or_none),
        help="Reads and writes of its disk a second, e.g. 1000; none: as many as it can.",
    ),
]
DiskBandwidth = Annotated[
    int | None,
    typer.Option(
        "--disk-bandwidth",
        metavar="SIZE|none",
        parser=as_option(parse_size_or_none),
        help="Bytes a second that it reads and writes of its disk, e.g. 50M; none: as many as it can.",
    ),
]
NetBandwidth = Annotated[
    int | None,
    typer.Option(
        "--net-bandwidth",
        metavar="SIZE|none",
        parser=as_option(parse_size_or_none),
        help="Bytes a second that it sends, and receives, in a shared network, e.g. 10M; none: as many as it can.",
    ),
]
AutoStart = Annotated[
    int | None,
    typer.Option(
        "--auto-start",
        metavar="yes|no|ORDER",
        parser=as_option(parse_turn),
        help="Start it whenever the host has started: by smaller numbers first, of 1 to 1000; yes is 500.",
    ),
]


HealthCmd = Annotated[
    str,
    typer.Option("--health-cmd", metavar="LINE", help="Ask whether it is well: a line for /bin/sh, 0 is yes."),
]
HealthInterval = Annotated[
    timedelta | None,
    typer.Option("--health-interval", metavar="DURATION", parser=Span, help="Between two; 30s unless the image says."),
]
HealthTimeout = Annotated[
    timedelta | None,
    typer.Option("--health-timeout", metavar="DURATION", parser=Span, help="Of one; 30s unless the image says."),
]
HealthStartPeriod = Annotated[
    timedelta | None,
    typer.Option("--health-start-period", metavar="DURATION", parser=Span, help="In which failures don't count."),
]
HealthRetries = Annotated[
    int | None,
    typer.Option("--health-retries", metavar="N", parser=Count, help="Failures in a row: 3 unless the image says."),
]
NoHealthcheck = Annotated[bool, typer.Option("--no-healthcheck", help="Don't ask, whatever the image says.")]


ChangedLabels = Annotated[
    list[str], typer.Option("--label", "-l", metavar="KEY[=VALUE]|KEY-", help="Write it on the VM, or take it away.")
]


def changed_labels(labels: Mapping[str, str], changes: Iterable[str]) -> dict[str, str]:
    """The labels when KEY=VALUE and KEY are written on the VM, and KEY- is taken away."""
    changes = list(changes)
    gone = {change[:-1] for change in changes if change.endswith("-") and "=" not in change}
    written = [change for change in changes if change[:-1] not in gone]
    return {key: value for key, value in {**labels, **parse_labels(written)}.items() if key not in gone}


def parse_labels(labels: Iterable[str]) -> dict[str, str]:
    """KEY=VALUE, or KEY alone for one without a value."""
    parsed = {key: value for key, _, value in (label.partition("=") for label in labels)}
    if "" in parsed:
        raise typer.BadParameter("a label has a key: KEY or KEY=VALUE", param_hint="'--label' / '-l'")
    return parsed


@dataclass(frozen=True, slots=True)
class VmOptions:
    """As they were given; see `spread`. Adding one here is all that the command line needs to set it."""

    name: Name = ""
    image: Image = ""
    kernel: Kernel = ""
    vcpu: Vcpus = None
    memory: Memory = None
    disk_size: DiskSize = None
    env: Environment = field(default_factory=list)
    env_file: EnvironmentFiles = field(default_factory=list)
    accel: Accel = None
    engine: Engine = ""
    disk_backend: Backend = None
    publish: Publish = field(default_factory=list)
    network: Network = ""
    nat: Nat = False
    init: PidOne = None
    boot: Boot = None
    ssh_key: SshKeys = field(default_factory=list)
    label: Labels = field(default_factory=list)
    pause_after: PauseAfter = None
    hibernate_after: HibernateAfter = None
    delete_after: DeleteAfter = None
    keep_awake: KeepAwake = None
    wake_by_name: WakeByName = None
    disk_iops: DiskIops = None
    disk_bandwidth: DiskBandwidth = None
    net_bandwidth: NetBandwidth = None
    auto_start: AutoStart = None
    health_cmd: HealthCmd = ""
    health_interval: HealthInterval = None
    health_timeout: HealthTimeout = None
    health_start_period: HealthStartPeriod = None
    health_retries: HealthRetries = None
    no_healthcheck: NoHealthcheck = False

    def spec(self) -> vm_pb2.VmSpec:
        """As the contract has them; what was not given stays unset and becomes the server's default."""
        return vm_pb2.VmSpec(
            name=self.name,
            image=self.image,
            kernel=self.kernel,
            vcpus=self.vcpu,
            memory_bytes=self.memory,
            disk_bytes=self.disk_size,
            env=read_environment(self.env_file, self.env),
            acceleration=vm_pb2.Acceleration.Value(f"ACCELERATION_{self.accel.name if self.accel else 'UNSPECIFIED'}"),
            engine=self.engine,
            disk_backend=self.disk_backend.value if self.disk_backend else "",
            ports=parse_published(self.publish),
            network=self.network,
            nat=self.nat or None,
            init=vm_pb2.Init.Value(f"INIT_{self.init.name if self.init else 'UNSPECIFIED'}"),
            boot_mode=vm_pb2.BootMode.Value(f"BOOT_MODE_{self.boot.name if self.boot else 'UNSPECIFIED'}"),
            ssh_keys=read_public_keys(self.ssh_key),
            labels=parse_labels(self.label),
            pause_after=duration(self.pause_after),
            hibernate_after=duration(self.hibernate_after),
            delete_after=duration(self.delete_after),
            keep_awake=self.keep_awake,
            wake_by_name=self.wake_by_name,
            disk_iops=self.disk_iops,
            disk_bytes_per_second=self.disk_bandwidth,
            net_bytes_per_second=self.net_bandwidth,
            auto_start=self.auto_start,
            healthcheck=self._healthcheck(),
        )

    def _healthcheck(self) -> healthcheck_pb2.Healthcheck | None:
        times = (self.health_interval, self.health_timeout, self.health_start_period, self.health_retries)
        given = bool(self.health_cmd) or any(value is not None for value in times)
        if self.no_healthcheck:
            if given:
                raise typer.BadParameter("it goes without the other --health options", param_hint="'--no-healthcheck'")
            return healthcheck_pb2.Healthcheck(test=["NONE"])
        if not given:
            return None
        return healthcheck_pb2.Healthcheck(
            test=["CMD-SHELL", self.health_cmd] if self.health_cmd else [],
            interval=duration(self.health_interval),
            timeout=duration(self.health_timeout),
            start_period=duration(self.health_start_period),
            retries=self.health_retries or 0,
        )

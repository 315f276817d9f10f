"""What one user may have at a time, and what it has."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Self

from ingle.api_server.model.caller import ROOT
from ingle.api_server.model.errors import Conflict, Reason
from ingle.api_server.model.spec import size_text
from ingle.api_server.model.vm import Vm, VmState


@dataclass(frozen=True, slots=True)
class Use:
    """What somebody has. The number of VMs and their disks, as large as they may become, and snapshots, as large as
    they are, count as long as they are there; processors, memory and published ports while they are up. What hibernates
    has its memory on the disk. Warm memories count in nobody's: the cache has a bound of its own."""

    vms: int = 0
    vcpus: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    ports: int = 0

    @classmethod
    def of(cls, vms: Iterable[Vm]) -> Self:
        """All of these."""
        all_vms = list(vms)
        there = [vm.settings for vm in all_vms]
        up = [vm.settings for vm in all_vms if vm.state.up]
        saved = sum(vm.settings.memory_bytes for vm in all_vms if vm.state is VmState.HIBERNATED)
        return cls(
            vms=len(there),
            vcpus=sum(each.vcpus for each in up),
            memory_bytes=sum(each.memory_bytes for each in up),
            disk_bytes=sum(each.disk_bytes for each in there) + saved,
            ports=sum(len(each.ports) for each in up),
        )

    def __add__(self, other: "Use") -> "Use":
        return Use(*(getattr(self, name) + getattr(other, name) for name in NAMES))


NAMES = tuple(each.name for each in fields(Use))
"""Of what is counted."""

_TOLD = {
    "vms": "VMs",
    "vcpus": "vcpus of VMs that are up",
    "memory_bytes": "memory of VMs that are up",
    "disk_bytes": "disks, snapshots and memory of VMs that hibernate",
    "ports": "published ports of VMs that are up",
}
_FREED_BY_STOPPING = frozenset({"vcpus", "memory_bytes", "ports"})


@dataclass(frozen=True, slots=True)
class Quota:
    """The most of each; None is no limit."""

    vms: int | None = None
    vcpus: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    ports: int | None = None

    def check(self, before: Use, after: Use) -> None:
        """Raise Conflict(QUOTA_EXCEEDED) when that is more than before, and too much. What frees is always allowed,
        also when there is too much still: a limit may have been lowered."""
        for name in NAMES:
            limit, used, wanted = getattr(self, name), getattr(before, name), getattr(after, name)
            if limit is not None and wanted > limit and wanted > used:
                verb = "stop" if name in _FREED_BY_STOPPING else "delete"
                raise Conflict(
                    Reason.QUOTA_EXCEEDED,
                    f"quota of {_TOLD[name]}: {told(name, limit)} allowed, {told(name, used)} used, "
                    f"{told(name, wanted - used)} more wanted",
                    f"ingle quota; ingle vm {verb} VM, or have [quotas] of config.toml raised",
                )


NO_LIMITS = Quota()


@dataclass(frozen=True, slots=True)
class Quotas:
    """Whose is which: by user, named as in the configuration by name or uid, else the default, which root has not."""

    default: Quota = NO_LIMITS
    by_user: Mapping[str, Quota] = field(default_factory=dict)

    def of(self, uid: int, name: str) -> Quota:
        """That user's; `name` is empty where it has none."""
        for key in (str(uid), name):
            if key in self.by_user:
                return self.by_user[key]
        return NO_LIMITS if uid == ROOT else self.default


NO_QUOTAS = Quotas()


def told(name: str, value: int) -> str:
    """A number of that kind, for people."""
    return size_text(value) if name.endswith("_bytes") else str(value)

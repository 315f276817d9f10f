"""One VMM process per VM: how it is prepared, started, found again, and ended."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.model.guest import AgentEndpoint
from ingle.api_server.model.network import PublishedPort
from ingle.api_server.model.rates import DiskRates
from ingle.api_server.model.vm import Acceleration, Kernel, LiveVmm, Vm
from ingle.api_server.ports.disk import BootConfig, Disk, DiskFormat
from ingle.api_server.ports.network import Link


@dataclass(frozen=True, slots=True)
class VmPaths:
    """Everything on disk that belongs to one VM; nothing else does.

    `state` holds what outlives a boot or is needed for all of it; `runtime` (0700) the secrets of its beginning: where
    that is, all may be taken away when its user logs out."""

    state: Path
    runtime: Path

    @property
    def console_log(self) -> Path:
        """What the guest wrote to its serial console."""
        return self.state / "console.log"

    @property
    def vmm_log(self) -> Path:
        """The VMM's stderr."""
        return self.state / "vmm.log"

    @property
    def control_socket(self) -> Path:
        """QMP, or Firecracker's API."""
        return self.state / "vmm.sock"

    @property
    def agent_socket(self) -> Path:
        """The VMM's end of the guest's serial port, where there is one."""
        return self.state / "agent.sock"

    @property
    def console_start(self) -> Path:
        """How long the console's log was when this boot began, in decimal."""
        return self.state / "console-start"

    @property
    def memory(self) -> Path:
        """A directory: what is saved of the guest's while it hibernates."""
        return self.state / "memory"

    @property
    def written(self) -> Path:
        """A directory with links to what a VMM writes, which sees no other one; there for as long as it does."""
        return self.state / "written"

    @property
    def metrics(self) -> Path:
        """A pipe into which the VMM tells what it counts, where it does."""
        return self.state / "metrics"

    @property
    def initramfs(self) -> Path:
        """Agent, modules and boot configuration; removed once the VMM has read it."""
        return self.runtime / "initramfs"


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What a VMM is started with."""

    vm: Vm
    paths: VmPaths
    vmlinux: Path
    root_disk: Disk
    acceleration: Acceleration
    token: bytes
    """What opens the agent: of a guest from a memory once it has been told, until then what opened the saved one's."""

    link: Link | None = None
    memory: Path | None = None
    """A directory that `Vmm.save`, and perhaps `Engine.share`, has filled: the guest in it goes on, where otherwise the
    kernel would boot. No initramfs is read then. The files are only read, and must stay as they are for as long as the
    VMM lives: it may have them as its memory."""

    modules_disk: Path | None = None
    """Of the kernel, if it has one: a read-only squashfs that all guests with that kernel share."""


@dataclass(frozen=True, slots=True)
class VmmUsage:
    """What a VMM costs the host."""

    cpu_seconds: float
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class DiskTraffic:
    """What went between a guest and its disk, as its VMM counts it. Of one that forgets what it has told, it is what
    came since this server knows it."""

    reads: int
    read_bytes: int
    writes: int
    written_bytes: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How a VM ended, as in `Vmm`."""

    failure: str = ""
    restarts: bool = False


class Vmm(Protocol):
    """A live VMM process. It outlives this object and the server."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def start_time(self) -> int:
        """Clock ticks since boot: with the pid, one process for ever."""

    @property
    def agent(self) -> AgentEndpoint:
        """Where the guest's agent can be reached."""

    @property
    def failure(self) -> str:
        """How it died; empty while it lives and when the guest powered itself off or rebooted. A kernel that panicked
        has died."""

    @property
    def stalled(self) -> bool:
        """Whether the VMM has stopped the guest, since the host has no space for what it writes. It can be resumed."""

    @property
    def restarts(self) -> bool:
        """Whether it has ended because the guest rebooted, and so wants to be started again."""

    async def boot(self) -> None:
        """Let the virtual CPUs run: of a guest from a memory, go on."""

    async def ready(self) -> None:
        """Return when the guest says that its agent listens; after that, when another try is worth it. A hint: guest
        code may lie. One from a memory says nothing, since its agent listens. Raises ToolFailed(VMM_FAILED) when the
        VMM is gone."""

    async def connections(self) -> int:
        """Open TCP connections of its guest's that the VMM itself carries, as it does those to published ports in a
        network of the guest's own. Raises ToolFailed(VMM_FAILED) when it is gone."""

    async def publish(self, port: PublishedPort) -> None:
        """Have a port of a guest's in a network of its own that is not the VMM's yet. Raises Conflict(IN_USE) when
        somebody else has it, ToolFailed(VMM_FAILED)."""

    def published(self, ports: Collection[PublishedPort]) -> Mapping[PublishedPort, int]:
        """The VMM's own sockets at these ports of its guest's, by descriptors that are the caller's: who has them when
        it ends has the ports. Those that can't be had are left out."""

    async def knocked(self) -> bool:
        """Whether somebody waits for a guest that is paused, at a published port of the VMM's own: for a connection, or
        with a datagram that has come since. Raises ToolFailed(VMM_FAILED) when it is gone."""

    async def pause(self) -> None:
        """Stop the virtual CPUs."""

    async def resume(self) -> None:
        """Let them go on. A stream to the agent that is made from then on ends as any other does; those from before the
        guest was saved may be over."""

    async def limit_disk(self, rates: DiskRates) -> None:
        """What its guest may take of its disk from now on; one that is launched may take what its VM's settings say.
        What goes beyond waits. Raises ToolFailed(VMM_FAILED)."""

    async def save(self, directory: Path) -> None:
        """Write the memory and the devices of a guest that is paused into files of the engine's own (0600, durable) in
        `directory`, which is empty; together they may be moved and copied. The guest stays paused; that its disk is
        kept together with them is the caller's.

        Raises HostProblem(DISK_FULL), ToolFailed(VMM_FAILED). What fails or is cancelled leaves no file, and the guest
        able to go on."""

    def give_way(self) -> None:
        """Of the processors it takes what others leave, from now on."""

    def signal(self, signal: int) -> None:
        """Send a signal; a process that is gone already is fine."""

    async def wait_gone(self, timeout_seconds: float | None = None) -> bool:
        """Whether the process was reaped or is seen to be gone within the time."""

    def note_logs(self) -> None:
        """Write down how long the logs are by now, for the times of their lines. Where that can't be done, these have a
        later time."""

    def bound_logs(self) -> None:
        """Forget what is old of the console and the VMM's stderr, and make room for more. To be done again and again;
        what is written in between, or while no server runs, is bounded by itself. Raises OSError."""

    def usage(self) -> VmmUsage:
        """As the host's kernel accounts it. Raises ToolFailed(VMM_FAILED) when it is gone."""

    async def disk_traffic(self) -> DiskTraffic | None:
        """None where nobody counts it. Raises ToolFailed(VMM_FAILED)."""

    async def close(self) -> None:
        """Let go of connections. The process lives on."""


class NetworkKind(Enum):
    """How a VM is connected, see model.network."""

    USER = "user"
    """The VMM alone connects it, with the rights of whoever runs it."""
    SHARED = "shared"
    """By a tap, in a network that VMs share."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine can do on a host that has all for it."""

    name: str
    """As in `Vm.engine`."""
    accelerations: frozenset[Acceleration]
    disk_formats: frozenset[DiskFormat]
    networks: frozenset[NetworkKind]
    most_vcpus: int | None = None
    """Of a VM; None: as many as the host has."""

    saves: bool = False
    """Whether a guest's memory can be saved and gone on from."""


class Engine(Protocol):
    """A kind of VMM."""

    @property
    def info(self) -> EngineInfo:
        """What it can do."""

    async def problem(self) -> HostProblem | None:
        """What it lacks on this host, or which release of it will not do, with an install hint: found out without
        starting a guest."""

    async def acceleration_problem(self, acceleration: Acceleration, kernel: Kernel) -> str:
        """Why guests with `kernel` can't run so here; empty when they can. `acceleration` is one of the engine's.
        KVM is probed by booting the kernel, once per kernel and host boot."""

    def check(self, paths: VmPaths, ports: Sequence[PublishedPort]) -> None:
        """Raise HostProblem when a VM with these paths and ports can't be started here: program missing, socket path
        too long, port refused; Conflict(IN_USE) when somebody has a port."""

    def boot_config(self, vm: Vm, token: bytes, link: Link | None) -> BootConfig:
        """What the agent is told about this engine's devices and network."""

    async def launch(self, plan: LaunchPlan) -> Vmm:
        """Start the process, in its own session, stopped before the first guest instruction; with a memory, when all of
        that is loaded.

        Raises ToolFailed(VMM_FAILED) with the end of its stderr: also where a memory is damaged, none of this engine's
        or of another machine; that it is of another version or processor is told by `memory_key` alone. A failure and
        cancelling leave no process."""

    async def share(self, vm: Vm, directory: Path) -> None:
        """Change the memory that `Vmm.save` has left in `directory` such that all VMs started from it have the same
        pages, until they write to them. `vm` is one with the same machine. Of one that is shared already nothing is
        changed.

        Raises HostProblem(DISK_FULL), ToolFailed(VMM_FAILED). A failure and cancelling leave the memory as it was."""

    async def memory_key(self, vm: Vm, kernel: Kernel, acceleration: Acceleration) -> str:
        """What a memory of this VM depends on: one with another key must not be gone on from. It has this engine's
        version, the processor, the devices; equal for all VMs with the same machine, kernel and acceleration. Raises
        HostProblem(DEPENDENCY_MISSING)."""

    async def adopt(self, vm: Vm, paths: VmPaths, live: LiveVmm, token: bytes) -> Vmm | None:
        """Take over a VMM that an earlier server started; None when exactly that process is gone. Raises
        ToolFailed(VMM_FAILED) when it lives and does not answer: nobody may then take the VM for dead."""

    async def version(self) -> str:
        """As the VMM prints it. Raises HostProblem(DEPENDENCY_MISSING) with an install hint."""


def engine_of(vm: Vm, engines: Mapping[str, Engine]) -> Engine:
    """The one that the VM has for life. Raises HostProblem(DEPENDENCY_MISSING) when this server does not have it."""
    if vm.settings.engine not in engines:
        raise HostProblem(
            Reason.DEPENDENCY_MISSING,
            f"VM {vm.name!r} is of engine {vm.settings.engine}; this server has {', '.join(engines) or 'none'}",
            f"ingle vm delete --force {vm.name}; or run the version of ingle that made it",
        )
    return engines[vm.settings.engine]


class Vmms(Protocol):
    """VMM processes and what their guests said last, by VM: whichever engine they are of, this server's or not."""

    def lives(self, vmm: LiveVmm) -> bool:
        """Whether exactly that process is there."""

    def ending(self, paths: VmPaths) -> Ending | None:
        """How a VM ended whose VMM is gone, as far as its guest has told: guest code may lie, about itself. None when
        it did not."""

    async def kill_all(self, paths: VmPaths) -> None:
        """Kill whatever VMM processes belong to these paths, recorded or not, and wait until they are gone."""

"""One VMM process per VM: how it is prepared, started, found again, and ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ingle.api_server.model.guest import AgentEndpoint
from ingle.api_server.model.network import PublishedPort
from ingle.api_server.model.vm import Acceleration, Kernel, Running, Vm
from ingle.api_server.ports.disk import BootConfig
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
    def console_start(self) -> Path:
        """How long the console's log was when this boot began, in decimal."""
        return self.state / "console-start"

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
    root_disk: Path
    acceleration: Acceleration
    token: bytes
    link: Link | None = None


@dataclass(frozen=True, slots=True)
class VmmUsage:
    """What a VMM costs the host."""

    cpu_seconds: float
    resident_bytes: int


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
        """Let the virtual CPUs run."""

    async def ready(self) -> None:
        """Return when the guest says that its agent listens; after that, when another try is worth it. A hint: guest
        code may lie. Raises ToolFailed(VMM_FAILED) when the VMM is gone."""

    async def pause(self) -> None:
        """Stop the virtual CPUs."""

    async def resume(self) -> None:
        """Let them go on."""

    def signal(self, signal: int) -> None:
        """Send a signal; a process that is gone already is fine."""

    async def wait_gone(self, timeout_seconds: float | None = None) -> bool:
        """Whether the process was reaped or is seen to be gone within the time."""

    def bound_logs(self) -> None:
        """Forget what is old of the console and the VMM's stderr, and make room for more. To be done again and again;
        what is written in between, or while no server runs, is bounded by itself. Raises OSError."""

    def usage(self) -> VmmUsage:
        """As the host's kernel accounts it. Raises ToolFailed(VMM_FAILED) when it is gone."""

    async def close(self) -> None:
        """Let go of connections. The process lives on."""


class Engine(Protocol):
    """A kind of VMM."""

    @property
    def name(self) -> str:
        """As in `Vm.engine`."""

    async def acceleration(self, wish: Acceleration, kernel: Kernel) -> Acceleration:
        """KVM or TCG. AUTO and KVM probe by booting `kernel`, once per kernel and host boot.

        Raises HostProblem when the wish is KVM and that does not work."""

    def check(self, paths: VmPaths, ports: Sequence[PublishedPort]) -> None:
        """Raise HostProblem when a VM with these paths and ports can't be started here: program missing, socket path
        too long, port refused; Conflict(IN_USE) when somebody has a port."""

    def boot_config(self, vm: Vm, token: bytes, link: Link | None) -> BootConfig:
        """What the agent is told about this engine's devices and network."""

    async def launch(self, plan: LaunchPlan) -> Vmm:
        """Start the process, in its own session, stopped before the first guest instruction.

        Raises ToolFailed(VMM_FAILED) with the end of its stderr. Cancelling leaves no process."""

    async def adopt(self, vm: Vm, paths: VmPaths, running: Running, token: bytes) -> Vmm | None:
        """Take over a VMM that an earlier server started; None when exactly that process is gone. Raises
        ToolFailed(VMM_FAILED) when it lives and does not answer: nobody may then take the VM for dead."""

    def ending(self, paths: VmPaths) -> Ending | None:
        """How a VM ended whose VMM is gone, as far as its guest has told: guest code may lie, about itself. None when
        it did not."""

    async def kill_all(self, paths: VmPaths) -> None:
        """Kill whatever VMM processes belong to these paths, recorded or not, and wait until they are gone."""

    async def version(self) -> str:
        """As the VMM prints it. Raises HostProblem(DEPENDENCY_MISSING) with an install hint."""

"""What puts the VM of a scripted world to sleep, and wakes it."""

from collections.abc import Mapping, Sequence
from typing import Any

from ingle.api_server.adapters.activation import LocalActivationSockets
from ingle.api_server.adapters.memories import LocalMemories
from ingle.api_server.model.guest import AgentEndpoint
from ingle.api_server.operations.sleep_vm import SleepPipelines, SleepVm
from ingle.api_server.operations.wake_vm import WakeVm
from ingle.api_server.steps.mark_waking import MarkWaking
from ingle.api_server.steps.record_loaded import RecordLoaded
from ingle.api_server.steps.resume import Resume
from unit.api_server.vmms import World


class Resting:
    """A dialler whose guests stand still when they are asked to, and go on."""

    def channel(self, endpoint: AgentEndpoint) -> Any:
        return self

    async def rest(self) -> None:
        """At once."""

    async def thaw(self) -> None:
        """The same."""


def sleeping(at: World, engines: Mapping[str, Any], dialler: Resting | None = None) -> SleepVm:
    """Pauses and hibernates."""
    vms = at.store.vms
    (engine,) = engines.values()
    pipelines = SleepPipelines.of(
        vms,
        at.store.kernels,
        engines,
        LocalMemories(),
        engine,
        at.network,
        dialler or Resting(),
        at.release,
        LocalActivationSockets(),
    )
    return SleepVm(at.operations, vms, at.store.journal, at.fleet, at.files, at.room, at.guests, engines, pipelines)


def waking(at: World, engines: Mapping[str, Any], launch: Sequence[Any] = ()) -> WakeVm:
    """Resumes and wakes, by these steps that launch."""
    vms, memories = at.store.vms, LocalMemories()
    wake = (
        MarkWaking(vms, memories),
        *launch,
        RecordLoaded(vms, at.clock),
    )
    return WakeVm(
        at.operations,
        vms,
        at.store.images,
        at.store.kernels,
        at.store.journal,
        at.fleet,
        at.files,
        memories,
        engines,
        at.room,
        LocalActivationSockets(),
        Resume(vms, at.network, at.dialler, at.clock),
        wake,
    )

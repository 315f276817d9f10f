"""Start a guest from the memory of one that has booted and run nothing."""

import logging
from collections.abc import Sequence

from ingle.api_server.model.errors import IngleError
from ingle.api_server.pipeline import Step, uninterrupted
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.engine import Vmms
from ingle.api_server.ports.warm import WarmCache
from ingle.api_server.steps.target import Start, VmTarget

log = logging.getLogger(__name__)


class StartWarm:
    """What would be a boot, in one step: when any of it fails, nothing has happened, and those of a boot follow. The
    disk is whole in any case, since the guest that was saved had written everything to it."""

    name = "warm"
    text = "starting from the memory of a guest that has booted"

    def __init__(self, steps: Sequence[Step[Start]], vmms: Vmms, cache: WarmCache, clock: Clock) -> None:
        """`steps` make of a target with a memory a guest that answers."""
        self._steps = steps
        self._vmms = vmms
        self._cache = cache
        self._clock = clock

    def needed(self, target: Start) -> bool:
        """Whether there is a memory."""
        return target.warm is not None

    async def run(self, target: Start) -> None:
        assert target.warm is not None
        target.memory, target.memory_token = target.warm.memory, target.warm.token
        try:
            for step in self._steps:
                began = self._clock.monotonic()
                await step.run(target)
                took = (self._clock.monotonic() - began) * 1000
                log.debug("%s", step.text, extra={"vm": target.vm_id, "ms": round(took, 1)})
        except (IngleError, TimeoutError) as error:
            await uninterrupted(self._give_up(target, error))
        else:
            await self._cache.used(target.warm.key, self._clock.now())

    async def undo(self, target: VmTarget) -> None:
        await self._end(target)

    async def _give_up(self, target: Start, error: IngleError | TimeoutError) -> None:
        assert target.warm is not None
        why = error.message if isinstance(error, IngleError) else "its guest did not answer in time"
        log.warning("a memory can't be started from", extra={"vm": target.vm_id, "key": target.warm.key, "error": why})
        target.warning = f"the VM has booted, since the memory it was to begin with can't be started from: {why}"
        await self._end(target)
        await self._cache.remove(target.warm.key)
        target.vmm = target.memory = target.warm = None

    async def _end(self, target: VmTarget) -> None:
        await self._vmms.kill_all(target.paths)
        if isinstance(target, Start) and target.vmm is not None:
            await target.vmm.close()

"""One lock a VM, for as long as somebody needs it."""

import asyncio
import gc
import weakref
from pathlib import Path

from ingle.api_server.model.vm import VmState
from unit.server.vmms import VM, world


async def test_a_vm_has_one_lock_however_often_it_is_asked_for(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        async with at.fleet.lock(VM.id):
            waiting = asyncio.create_task(at.fleet.lock(VM.id).acquire())
            gc.collect()
            await asyncio.sleep(0)
            assert at.fleet.lock(VM.id).locked()
            assert not waiting.done()
        assert await waiting
        waiting.cancel()


async def test_a_lock_that_nobody_uses_is_forgotten_also_when_the_vm_came_to_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        async with at.fleet.lock("never-made"):
            lock = weakref.ref(at.fleet.lock("never-made"))
        gc.collect()
        assert lock() is None

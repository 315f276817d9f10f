"""A starting server and what an earlier one left."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import Reason, ToolFailed
from ingle.api_server.model.vm import VmState
from ingle.api_server.operations.recover import Recovery
from ingle.api_server.ports.engine import VmPaths
from unit.server.vmms import VM, world

OTHER = replace(VM, id="ba9876543210", name="other")


class FailingForOne:
    """An engine that can't kill what belongs to VM."""

    async def kill_all(self, paths: VmPaths) -> None:
        if paths.state.name == VM.id:
            raise ToolFailed(Reason.VMM_FAILED, "it does not die")


async def test_a_vm_that_can_not_be_recovered_does_not_keep_the_others_down(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPING) as at:
        await at.store.insert_vm(OTHER, bytes(32))
        await at.store.move_vm(OTHER.id, VmState.STARTING)
        library = DirectoryLibrary(tmp_path / "library", Tools(tmp_path))
        await Recovery(
            store=at.store,
            fleet=at.fleet,
            files=at.files,
            engine=cast("Any", FailingForOne()),
            images=library,
            kernels=library,
            steps=(),
        ).run()
        assert await at.state() is VmState.STOPPING
        assert (await at.store.vm(OTHER.id)).state is VmState.STOPPED

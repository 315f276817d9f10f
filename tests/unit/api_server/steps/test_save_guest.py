"""A snapshot has what it was planned to have, or is refused."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.model.errors import Conflict, Reason
from ingle.api_server.model.snapshot import Snapshot
from ingle.api_server.model.vm import VmState
from ingle.api_server.steps.save_guest import SaveGuest
from ingle.api_server.steps.snapshot_target import Making
from unit.api_server.vmms import KERNEL, NOW, VM, world


class Untouched:
    """Files and devices that nobody is to ask for anything."""


async def test_one_with_a_memory_is_not_taken_of_a_vm_that_was_stopped_before_it_woke(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        vm = await at.store.vms.get(VM.id)
        snapshot = Snapshot("0" * 12, "before", vm.owner, NOW, vm.id, vm.name, vm.settings, memory=True)
        nothing = cast("Any", Untouched())
        save = SaveGuest(
            at.store.vms,
            at.store.snapshots,
            at.fleet,
            at.dialler,
            at.files,
            nothing,
            nothing,
            nothing,
            nothing,
            at.clock,
            lambda vm_id: nullcontext(True),
        )
        with pytest.raises(Conflict, match="is stopped by now: no snapshot was taken") as refused:
            await save.run(Making("op-1", snapshot.id, snapshot, vm, KERNEL))
        assert (refused.value.reason, refused.value.remedy) == (Reason.WRONG_STATE, f"ingle vm show {vm.name}")

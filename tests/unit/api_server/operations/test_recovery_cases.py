"""What a server that starts makes of a VM: by the state that is recorded, by what there is of its memory, and by
whether its VMM lives."""

from pathlib import Path
from typing import cast

import pytest

from ingle.api_server.model.vm import VmState
from ingle.api_server.ports.engine import Ending, Vmm
from unit.api_server.recovering import recovery
from unit.api_server.vmms import VM, World, world

LIVES, GONE = True, False
UNSEEN = "its VMM ended while no server was there to see it"
WAKING = "one that wakes"


class Engine:
    """Adopts what lives, and knows of others' VMMs nothing."""

    def __init__(self, at: World) -> None:
        self._at = at
        self.killed: list[str] = []

    async def adopt(self, *_: object) -> Vmm:
        return cast("Vmm", self._at.vmm)

    def ending(self, *_: object) -> Ending | None:
        return None

    async def kill_all(self, paths: object) -> None:
        self.killed.append(VM.id)


CASES = [
    # recorded, its VMM: becomes, why, whether what was saved of its memory is kept, whether its VMM is killed
    (VmState.CREATING, GONE, VmState.CREATING, "", False, False),
    (VmState.STOPPED, GONE, VmState.STOPPED, "", False, False),
    (VmState.ERROR, GONE, VmState.ERROR, "", False, False),
    (VmState.STARTING, GONE, VmState.STOPPED, "", False, True),
    (VmState.STARTING, LIVES, VmState.STOPPED, "", False, True),
    (WAKING, GONE, VmState.HIBERNATED, "", True, True),
    (WAKING, LIVES, VmState.HIBERNATED, "", True, True),
    (VmState.RUNNING, LIVES, VmState.RUNNING, "", False, False),
    (VmState.RUNNING, GONE, VmState.ERROR, UNSEEN, False, True),
    (VmState.PAUSED, LIVES, VmState.PAUSED, "", False, False),
    (VmState.PAUSED, GONE, VmState.ERROR, UNSEEN, False, True),
    (VmState.HIBERNATED, GONE, VmState.HIBERNATED, "", True, False),
    (VmState.STOPPING, LIVES, VmState.STOPPED, "", False, True),
    (VmState.STOPPING, GONE, VmState.STOPPED, "", False, True),
]


@pytest.mark.parametrize("saved", [(), ("memory",), ("memory.new",), ("memory", "memory.new")], ids=" ".join)
@pytest.mark.parametrize(("recorded", "lives", "becomes", "why", "kept", "killed"), CASES)
async def test_a_vm_is_what_was_recorded_or_says_what_became_of_it(
    tmp_path: Path,
    saved: tuple[str, ...],
    recorded: VmState | str,
    lives: bool,
    becomes: VmState,
    why: str,
    kept: bool,
    killed: bool,
) -> None:
    async with world(tmp_path, recorded if isinstance(recorded, VmState) else VmState.HIBERNATED) as at:
        if recorded == WAKING:
            await at.store.vms.move(VM.id, VmState.STARTING)
        for name in saved:
            directory = at.paths.memory.with_name(name)
            directory.mkdir(parents=True)
            (directory / "ram").write_bytes(b"what it had")
        await at.fleet.detach(VM.id)  # what the former server knew
        engine = Engine(at)
        await recovery(at, tmp_path, engine, lives=lives).run()
        vm = await at.store.vms.get(VM.id)
        assert vm.state is becomes
        assert vm.error == why
        up = becomes in {VmState.RUNNING, VmState.PAUSED}
        assert (at.fleet.vmm(VM.id) is not None, vm.vmm is not None) == (up, up)
        assert at.paths.memory.exists() == (kept and "memory" in saved)
        assert bool(engine.killed) == killed
        assert await at.store.journal.open_entries() == []
        assert at.fleet.reboots.known() == []

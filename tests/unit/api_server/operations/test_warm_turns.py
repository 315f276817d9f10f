"""Who has a memory made waits for its owner's others, and for nobody else's."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ingle.api_server.model.errors import Conflict, Reason
from ingle.api_server.model.quota import Use
from ingle.api_server.model.vm import Acceleration, VmState
from ingle.api_server.model.warm import Machine
from ingle.api_server.operations.warm_starts import WarmStarts
from unit.api_server.vmms import IMAGE, KERNEL, ME, VM, world


class Making(WarmStarts):
    """As far as turns go: what is made takes until `done`."""

    def __init__(self, vms: object = None) -> None:
        names = "operations images kernels journal clock engines backends media placement cache files steps room limits"
        nothing = cast("Any", None)
        resolve = cast("Any", type("Defaults", (), {"defaults": None}))
        super().__init__(**dict.fromkeys(names.split(), nothing), vms=cast("Any", vms), resolve=resolve)
        self.under_way: list[int] = []
        self.done = asyncio.Event()

    async def _find(self, *_: object) -> None:
        """There is none."""

    async def _make(self, machine: Machine, *_: object, **__: object) -> Any:
        self.under_way.append(machine.owner)
        await self.done.wait()


def begun(making: WarmStarts, owner: int, *, waited: bool = True) -> "asyncio.Task[object]":
    machine = Machine.of(VM, Acceleration.TCG, "", "")
    machine = Machine(**{name: getattr(machine, name) for name in Machine.__slots__} | {"owner": owner})
    return asyncio.create_task(making._make_once(machine, IMAGE, KERNEL, cast("Any", None), waited=waited))


async def test_nobody_waits_for_what_another_has_asked_for() -> None:
    making = Making()
    tasks = [begun(making, owner) for owner in (1000, 1000, 1001)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert making.under_way == [1000, 1001], "the second one of 1000 waits for the first"
    making.done.set()
    await asyncio.gather(*tasks)
    assert making.under_way == [1000, 1001, 1000]


async def test_what_is_made_by_itself_is_one_at_a_time_and_owners_take_turns() -> None:
    making = Making()
    tasks = [begun(making, owner, waited=False) for owner in (1000, 1000, 1000, 1001)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert making.under_way == [1000]
    making.done.set()
    await asyncio.gather(*tasks)
    assert making.under_way == [1000, 1001, 1000, 1000]


async def test_what_was_pulled_for_one_is_what_its_making_is_about(tmp_path: Path) -> None:
    class Pulling:
        defaults = None

        async def look(self, wish: object) -> object:
            return SimpleNamespace(spec=VM.settings, image=None)

        async def get(self, wanted: object, *_: object) -> object:
            return SimpleNamespace(settings=VM.settings, image=IMAGE, kernel=KERNEL)

    class Ready(Making):
        def check(self, *_: object) -> None:
            """Nothing speaks against it."""

        async def _have(self, *_: object, **__: object) -> Any:
            """It is there."""

    async with world(tmp_path, VmState.RUNNING) as at:
        making = Ready(SimpleNamespace(check_room=anything))
        making._operations, making._clock = at.operations, at.clock
        making._resolve, making._room = cast("Any", Pulling()), cast("Any", SimpleNamespace(check_start=lambda: None))
        ongoing = await making.warm("op-1", ME, cast("Any", None))
        await ongoing.result()
        assert ongoing.operation.target_id == IMAGE.id
        assert [each.target_id for each in await at.store.operations.latest()] == [IMAGE.id]


async def anything(*_: object) -> None:
    """It is allowed."""


async def test_what_is_more_than_a_quota_is_not_made() -> None:
    class Full:
        async def check_room(self, owner: int, more: Use) -> None:
            assert more == Use(vcpus=VM.settings.vcpus, memory_bytes=VM.settings.memory_bytes)
            raise Conflict(Reason.QUOTA_EXCEEDED, f"quota of {owner}")

    class Asking(Making):
        async def _make(self, machine: Machine, *rest: Any, **named: Any) -> Any:
            return await WarmStarts._make(self, machine, *rest, **named)

    with pytest.raises(Conflict, match="quota of 1000"):
        await begun(Asking(Full()), 1000)

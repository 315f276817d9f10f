"""VMs that live for a process, and what watching it costs."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.model.caller import ROOT
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import Keeper, Vm, VmState
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.keepers import Keepers
from ingle.api_server.operations.runner import Ongoing, Progress
from ingle.api_server.rpc.guest import GuestServicer
from ingle.v1 import guest_pb2
from unit.api_server.calling import ADMITTED
from unit.api_server.vmms import VM, World, world

KEEPER, OTHER = Keeper(41, 7), Keeper(42, 8)


class Processes:
    """They live until they are told to end."""

    def __init__(self) -> None:
        self.over: dict[Keeper, asyncio.Event] = {KEEPER: asyncio.Event(), OTHER: asyncio.Event()}
        self.watched: list[Keeper] = []

    async def ended(self, keeper: Keeper) -> None:
        self.watched.append(keeper)
        await self.over[keeper].wait()


class DeletesRow:
    """The step, as far as these VMs go."""

    name = "delete"
    text = "deleting"

    def __init__(self, at: World) -> None:
        self._at = at

    async def run(self, target: Any) -> None:
        await self._at.store.vms.delete(target.vm_id)


def keepers(at: World, processes: Processes) -> Keepers:
    return Keepers(
        at.store.vms,
        processes,
        DeleteVm(at.operations, at.store.vms, at.store.journal, at.fleet, at.files, cast("Any", DeletesRow(at))),
    )


async def create(at: World, number: int, keeper: Keeper) -> Ongoing[Vm]:
    vm = replace(VM, id=f"{number:012x}", name=f"vm-{number}")

    async def work(_: Progress) -> Vm:
        await at.store.vms.insert(vm, bytes(32), keeper=keeper)
        return vm

    running = await at.operations.begin(f"op-{number}", ROOT, OperationKind.CREATE_VM, work, vm.id)
    await running.result()
    return running


async def names(at: World) -> list[str]:
    return sorted(vm.name for vm in await at.store.vms.all())


async def until_they_are(at: World, wanted: list[str]) -> None:
    async with asyncio.timeout(20):
        while await names(at) != wanted:
            await asyncio.sleep(0.01)


async def test_all_of_a_keeper_goes_with_it_and_nothing_of_anybody_elses(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        processes = Processes()
        watch = keepers(at, processes)
        for number in range(20):
            watch.watch(await create(at, number, KEEPER), KEEPER)
        watch.watch(await create(at, 99, OTHER), OTHER)
        await asyncio.sleep(0)
        assert processes.watched == [KEEPER, OTHER], "one watch a keeper"
        await at.store.vms.delete(f"{7:012x}")  # by itself
        processes.over[KEEPER].set()
        await until_they_are(at, ["demo", "vm-99"])
        await watch.close()


async def test_a_new_server_deletes_what_lived_for_a_call_and_watches_the_rest(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        await create(at, 1, KEEPER)
        await create(at, 2, OTHER)
        await at.store.vms.kept_by_a_call(f"{2:012x}")
        processes = Processes()
        watch = keepers(at, processes)
        await watch.take_up()
        await at.store.vms.kept_by_a_call(VM.id)  # one of this server's own calls
        await until_they_are(at, ["demo", "vm-1"])
        assert processes.watched == [KEEPER]
        processes.over[KEEPER].set()
        await until_they_are(at, ["demo"])
        await watch.close()


async def test_a_caller_that_leaves_while_a_vm_becomes_its_calls_leaves_no_vm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        own, kept = at.store.vms.kept_by_a_call, asyncio.Event()

        async def tell_late(vm_id: str) -> None:
            await own(vm_id)
            kept.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(at.store.vms, "kept_by_a_call", tell_late)
        delete = DeleteVm(
            at.operations, at.store.vms, at.store.journal, at.fleet, at.files, cast("Any", DeletesRow(at))
        )

        async def requests() -> AsyncIterator[guest_pb2.ExecRequest]:
            yield guest_pb2.ExecRequest(start=guest_pb2.ExecStart(vm=VM.id, argv=["true"], delete_vm=True))

        responses = GuestServicer(at.guests, delete).Exec(requests(), ADMITTED)
        call = asyncio.ensure_future(anext(responses))
        await kept.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await at.store.vms.all() == []
        assert await at.store.vms.keepers() == []

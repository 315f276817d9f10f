"""VMs that live for a process, and what watching it costs."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import Owner, Vm, VmState
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.owners import Owners
from ingle.api_server.operations.runner import Progress, Running
from ingle.api_server.rpc.guest import GuestServicer
from ingle.v1 import guest_pb2
from unit.server.vmms import VM, World, world

OWNER, OTHER = Owner(41, 7), Owner(42, 8)


class Processes:
    """They live until they are told to end."""

    def __init__(self) -> None:
        self.over: dict[Owner, asyncio.Event] = {OWNER: asyncio.Event(), OTHER: asyncio.Event()}
        self.watched: list[Owner] = []

    async def ended(self, owner: Owner) -> None:
        self.watched.append(owner)
        await self.over[owner].wait()


class DeletesRow:
    """The step, as far as these VMs go."""

    name = "delete"
    text = "deleting"

    def __init__(self, at: World) -> None:
        self._at = at

    async def run(self, target: Any) -> None:
        await self._at.store.delete_vm(target.vm_id)


def owners(at: World, processes: Processes) -> Owners:
    return Owners(
        at.store, processes, DeleteVm(at.operations, at.store, at.fleet, at.files, cast("Any", DeletesRow(at)))
    )


async def create(at: World, number: int, owner: Owner) -> Running[Vm]:
    vm = replace(VM, id=f"{number:012x}", name=f"vm-{number}")

    async def work(_: Progress) -> Vm:
        await at.store.insert_vm(vm, bytes(32), owner=owner)
        return vm

    running = await at.operations.begin(f"op-{number}", OperationKind.CREATE_VM, work, vm.id)
    await running.result()
    return running


async def names(at: World) -> list[str]:
    return sorted(vm.name for vm in await at.store.vms())


async def until_they_are(at: World, wanted: list[str]) -> None:
    async with asyncio.timeout(20):
        while await names(at) != wanted:
            await asyncio.sleep(0.01)


async def test_all_of_an_owner_goes_with_it_and_nothing_of_anybody_elses(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        processes = Processes()
        watch = owners(at, processes)
        for number in range(20):
            watch.watch(await create(at, number, OWNER), OWNER)
        watch.watch(await create(at, 99, OTHER), OTHER)
        await asyncio.sleep(0)
        assert processes.watched == [OWNER, OTHER], "one watch an owner"
        await at.store.delete_vm(f"{7:012x}")  # by itself
        processes.over[OWNER].set()
        await until_they_are(at, ["demo", "vm-99"])
        await watch.close()


async def test_a_new_server_deletes_what_lived_for_a_call_and_watches_the_rest(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        await create(at, 1, OWNER)
        await create(at, 2, OTHER)
        await at.store.owned_by_a_call(f"{2:012x}")
        processes = Processes()
        watch = owners(at, processes)
        await watch.take_up()
        await at.store.owned_by_a_call(VM.id)  # one of this server's own calls
        await until_they_are(at, ["demo", "vm-1"])
        assert processes.watched == [OWNER]
        processes.over[OWNER].set()
        await until_they_are(at, ["demo"])
        await watch.close()


async def test_a_caller_that_leaves_while_a_vm_becomes_its_calls_leaves_no_vm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        own, owned = at.store.owned_by_a_call, asyncio.Event()

        async def tell_late(vm_id: str) -> None:
            await own(vm_id)
            owned.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(at.store, "owned_by_a_call", tell_late)
        delete = DeleteVm(at.operations, at.store, at.fleet, at.files, cast("Any", DeletesRow(at)))

        async def requests() -> AsyncIterator[guest_pb2.ExecRequest]:
            yield guest_pb2.ExecRequest(start=guest_pb2.ExecStart(vm=VM.id, argv=["true"], delete_vm=True))

        responses = GuestServicer(at.store, at.fleet, delete).Exec(requests(), cast("Any", None))
        call = asyncio.ensure_future(anext(responses))
        await owned.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await at.store.vms() == []
        assert await at.store.owners() == []

"""VMs in networks that they share: their slots, and who is connected when."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server import pipeline
from ingle.api_server.model.errors import HostProblem, InvalidArgument, Reason
from ingle.api_server.model.network import PublishedPort
from ingle.api_server.model.spec import HostLimits, VmChange, VmSpec
from ingle.api_server.model.vm import Acceleration, Image, Kernel, LiveVmm, VmState
from ingle.api_server.ports.network import Link
from ingle.api_server.steps.connect import Connect
from ingle.api_server.steps.mark_paused import MarkPaused
from ingle.api_server.steps.resume import Resume
from ingle.api_server.steps.target import Sleep, Start, VmTarget
from ingle.api_server.steps.withhold_ports import WithholdPorts
from unit.api_server.recovering import recovery
from unit.api_server.vmms import NOW, VM, ScriptedVmm, World, mine, world

LIMITS = HostLimits(vcpus=8, memory_bytes=2**40)
SHARED = replace(VM, id="ba9876543210", name="shared", settings=replace(VM.settings, network="backend", nat=False))
LINK = Link("tap", "02:00:00:00:00:02", "10.0.0.2", 24, "10.0.0.1", "fd00::2")
OP_ID = "op-0123456789ab"


async def started(at: World) -> None:
    """SHARED runs, in a process that is not there."""
    await at.store.vms.move(SHARED.id, VmState.STARTING)
    running = LiveVmm(2**22 - 1, 1, Acceleration.TCG, NOW)
    await at.store.vms.move(SHARED.id, VmState.RUNNING, vmm=running, link=LINK)


@asynccontextmanager
async def shared_world(root: Path) -> AsyncIterator[World]:
    async with world(root, VmState.STOPPED) as at:
        await at.store.vms.insert(SHARED, bytes(32))
        yield at


def target(at: World, vm: Any) -> Start:
    image = Image(VM.settings.image_id, (), 2**20, NOW, "a test")
    kernel = Kernel(VM.settings.kernel_id, (), "6.1", 2**20, (), NOW, "a test")
    return Start(OP_ID, vm.id, at.files.paths(vm.id), vm, image, kernel, bytes(32))


async def test_a_vm_in_a_network_of_its_own_has_no_slot(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        assert (await at.store.vms.get(VM.id)).slot is None
        assert await at.store.vms.slot(VM.id) is None
        assert await at.store.vms.slot("not there") is None


async def test_slots_of_a_network_follow_each_other_and_each_network_has_its_own(tmp_path: Path) -> None:
    async with shared_world(tmp_path) as at:
        second = await at.store.vms.insert(replace(SHARED, id="1" * 12, name="second"), bytes(32))
        other = await at.store.vms.insert(
            replace(SHARED, id="2" * 12, name="third", settings=replace(SHARED.settings, network="front")), bytes(32)
        )
        assert (await at.store.vms.get(SHARED.id)).slot == 2
        assert (second.slot, other.slot) == (3, 256 + 2)
        assert await at.store.vms.get(second.id) == second


async def test_the_slot_of_a_deleted_vm_and_the_number_of_an_empty_network_are_given_again(tmp_path: Path) -> None:
    async with shared_world(tmp_path) as at:
        await at.store.vms.insert(replace(SHARED, id="1" * 12, name="second"), bytes(32))
        await at.store.vms.delete(SHARED.id)
        assert (await at.store.vms.insert(SHARED, bytes(32))).slot == 2
        await at.store.vms.delete(SHARED.id)
        await at.store.vms.delete("1" * 12)
        front = replace(SHARED, settings=replace(SHARED.settings, network="front"))
        assert (await at.store.vms.insert(front, bytes(32))).slot == 2


async def test_a_full_network_refuses_one_more_and_stores_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        for number in range(253):
            await at.store.vms.insert(replace(SHARED, id=f"{number:012x}", name=f"vm-{number}"), bytes(32))
        with pytest.raises(HostProblem, match="'backend' has its 253 VMs") as refused:
            await at.store.vms.insert(SHARED, bytes(32))
        assert refused.value.reason is Reason.ADDRESSES_EXHAUSTED
        assert len(await at.store.vms.all()) == 254


async def test_the_step_connects_and_its_undo_needs_the_id_alone(tmp_path: Path) -> None:
    async with shared_world(tmp_path) as at:
        step = Connect(at.network, at.names, at.store.vms)
        start = target(at, await at.store.vms.get(SHARED.id))
        await step.run(start)
        assert set(at.network.connected) == {2}
        assert start.link is not None
        assert start.link.address == "10.0.0.2"
        assert at.names.gateways == {"10.0.0.1"}
        assert at.network.dns == {0: 20053}
        await step.undo(VmTarget(OP_ID, SHARED.id, at.files.paths(SHARED.id)))
        assert at.network.connected == {}


async def test_nobody_is_asked_for_a_vm_in_a_network_of_its_own(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        at.network.failure = HostProblem(Reason.DEPENDENCY_MISSING, "no helper")
        step = Connect(at.network, at.names, at.store.vms)
        start = target(at, await at.store.vms.get(VM.id))
        await step.run(start)
        assert start.link is None
        await step.undo(VmTarget(OP_ID, VM.id, at.files.paths(VM.id)))


async def test_a_vm_that_ended_while_no_server_saw_it_is_disconnected(tmp_path: Path) -> None:
    async with shared_world(tmp_path) as at:
        await at.network.connect(await at.store.vms.get(SHARED.id))
        await at.network.connect(replace(SHARED, slot=77))  # of a VM that nobody knows
        await started(at)
        await recovery(at, tmp_path, NothingAlive()).run()
        assert (await at.store.vms.get(SHARED.id)).state is VmState.ERROR
        assert at.network.connected == {}


async def test_a_server_starts_though_the_helper_does_not_answer(tmp_path: Path) -> None:
    async with shared_world(tmp_path) as at:
        await started(at)
        at.network.failure = HostProblem(Reason.DEPENDENCY_MISSING, "no helper")
        await recovery(at, tmp_path, NothingAlive()).run()
        assert (await at.store.vms.get(SHARED.id)).state is VmState.ERROR


@pytest.mark.parametrize("on", [True, False])
async def test_nat_of_a_running_vm_is_changed_at_once(tmp_path: Path, on: bool) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        await at.store.vms.insert(replace(SHARED, settings=replace(SHARED.settings, nat=not on)), bytes(32))
        await started(at)
        assert (await changed(at, VmChange(nat=on))).settings.nat is on
        assert at.network.connected[2].settings.nat is on
        assert (await at.store.vms.get(SHARED.id)).settings.nat is on


async def test_nat_of_a_stopped_vm_and_nat_as_it_is_take_no_helper(tmp_path: Path) -> None:
    async with shared_world(tmp_path) as at:
        await at.store.vms.move(SHARED.id, VmState.STOPPED)
        at.network.failure = HostProblem(Reason.DEPENDENCY_MISSING, "no helper")
        assert (await changed(at, VmChange(nat=True))).settings.nat is True
        await started(at)
        assert (await changed(at, VmChange(nat=True))).settings.nat is True


async def test_nat_that_could_not_be_changed_is_as_it_was(tmp_path: Path) -> None:
    async with shared_world(tmp_path) as at:
        await started(at)
        at.network.failure = HostProblem(Reason.DEPENDENCY_MISSING, "no helper")
        with pytest.raises(HostProblem):
            await changed(at, VmChange(nat=True))
        assert (await at.store.vms.get(SHARED.id)).settings.nat is False


async def test_nat_of_a_network_of_ones_own_can_not_be_off(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        update = at.updating({})
        with pytest.raises(InvalidArgument, match="can't be off"):
            await update.update(OP_ID, mine(VM.id), VmChange(nat=False))
    with pytest.raises(InvalidArgument, match="can't be off"):
        VmSpec(network="user", nat=False).check(LIMITS)


@pytest.mark.parametrize("name", ["Upper", "a_b", "-a", "a" * 64, "../etc", "a b"])
def test_what_can_not_name_a_network(name: str) -> None:
    with pytest.raises(InvalidArgument, match="DNS label"):
        VmSpec(network=name).check(LIMITS)


async def changed(at: World, change: VmChange) -> Any:
    update = at.updating({})
    return await (await update.update(OP_ID, mine(SHARED.id), change)).result()


class NothingAlive:
    """An engine whose processes are all gone."""

    async def adopt(self, *_: object) -> None:
        return None

    def ending(self, _: object) -> None:
        """Nobody knows."""

    async def kill_all(self, _: object) -> None:
        return None


async def test_who_is_connected_is_told_whenever_it_changes(tmp_path: Path) -> None:
    async with shared_world(tmp_path) as at:
        seen: list[tuple[str, list[str]]] = []
        at.store.vms.watchers.append(
            lambda vm_id: seen.append((vm_id, [vm.name for vm in at.store.vms.connected(vm_id)]))
        )
        assert at.store.vms.connected() == []
        await started(at)
        shared = await at.store.vms.get(SHARED.id)
        assert at.store.vms.connected() == at.store.vms.connected(SHARED.id) == [shared]
        assert at.store.vms.connected(VM.id) == []
        assert seen[-1] == (SHARED.id, ["shared"])
        await at.store.vms.change(replace(shared, name="renamed"))
        assert seen[-1] == (SHARED.id, ["renamed"])
        await at.store.vms.move(SHARED.id, VmState.STOPPED)
        assert seen[-1] == (SHARED.id, [])
        assert at.store.vms.connected() == []
        del seen[:]
        await at.store.vms.delete(SHARED.id)
        assert seen == [(SHARED.id, [])]


async def test_a_starting_server_serves_names_to_the_vms_it_adopts(tmp_path: Path) -> None:
    async with shared_world(tmp_path) as at:
        await started(at)
        await recovery(at, tmp_path, Adopting()).run()
        assert set(at.network.connected) == {2}
        assert at.names.gateways == {"10.0.0.1"}
        assert at.network.dns == {0: 20053}


class Adopting:
    """An engine whose processes all live on."""

    async def adopt(self, *_: object) -> ScriptedVmm:
        return ScriptedVmm()


class Fails:
    """A step that does."""

    name = "fails"
    text = "failing"

    async def run(self, target: VmTarget) -> None:
        raise HostProblem(Reason.DISK_FULL, "no room")


async def test_ports_of_one_that_stands_still_are_the_servers_until_it_goes_on(tmp_path: Path) -> None:
    async with shared_world(tmp_path) as at:
        await started(at)
        vm = await at.store.vms.get(SHARED.id)
        vm = replace(vm, settings=replace(vm.settings, ports=(PublishedPort(8080, 80),)))
        await at.store.vms.change(vm)
        mark, withhold = MarkPaused(at.store.vms), WithholdPorts(at.network)
        target = Sleep(OP_ID, vm.id, at.files.paths(vm.id), vm, cast("Any", at.vmm))
        with pytest.raises(HostProblem):
            await pipeline.run((mark, withhold, Fails()), target, at.store.journal, lambda *_: ())
        assert (await at.store.vms.get(vm.id)).state is VmState.RUNNING
        assert at.network.connected[2].asleep_since is None
        target = Sleep(OP_ID, vm.id, at.files.paths(vm.id), vm, cast("Any", at.vmm))
        await pipeline.run((mark, withhold), target, at.store.journal, lambda *_: ())
        assert at.network.connected[2].asleep_since is not None
        resume = Resume(at.store.vms, at.network, at.dialler, at.clock)
        at.network.failure = HostProblem(Reason.DEPENDENCY_MISSING, "no helper")
        await resume.run(target)
        assert (target.vm.state, at.network.connected[2].asleep_since is None) == (VmState.RUNNING, False)
        assert "its ports are not led to it: no helper" in (await at.store.vms.get(vm.id)).error
        at.network.failure = None
        await at.store.vms.move(vm.id, VmState.PAUSED)
        await resume.run(target)
        assert at.network.connected[2].asleep_since is None

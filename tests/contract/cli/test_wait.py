"""Waiting for VMs to become what a script needs."""

import asyncio
import json

from contract.cli.conftest import Ingle
from contract.cli.world import World
from ingle.v1 import vm_pb2


async def test_what_is_so_already_is_told_at_once(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    world.add_vm("db", vm_pb2.VM_STATE_STOPPED)
    assert (await ingle("vm", "wait", "web", "--for", "healthy")).text == "web\n"
    assert (await ingle("vm", "wait", "db", "--for", "stopped")).text == "db\n"
    gone = await ingle("vm", "wait", "ghost", "--for", "gone", "--json")
    assert (gone.code, json.loads(gone.out)) == (0, {"reference": "ghost", "is": "gone"})


async def test_waits_for_all_of_them_by_their_ids(ingle: Ingle, world: World) -> None:
    vms = [world.add_vm(name, vm_pb2.VM_STATE_STARTING) for name in ("a", "b")]
    process = await ingle.start("vm", "wait", "a", "b", "--for", "running")
    async with asyncio.timeout(60):
        while len(world.looked_up) < 4:
            await asyncio.sleep(0.01)
        vms[0].name = "renamed"
        for vm in vms:
            vm.state = vm_pb2.VM_STATE_RUNNING
        out, err = await process.communicate()
    assert (process.returncode, sorted(out.decode().split()), err) == (0, ["a", "b"], b"")


async def test_a_guest_that_does_not_answer_is_not_healthy(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    world.hung = True
    late = await ingle("vm", "wait", "web", "--for", "healthy", "--timeout", "200ms")
    assert (late.code, late.out) == (124, b"")
    assert late.err.startswith("ingle: web: it is running, nothing within 2 s")


async def test_what_can_not_become_so_by_itself_ends_it(ingle: Ingle, world: World) -> None:
    world.add_vm("web", vm_pb2.VM_STATE_ERROR, error="the VMM died")
    world.add_vm("db")
    ended = await ingle("vm", "wait", "web", "ghost", "db", "--for", "running")
    assert (ended.code, ended.text) == (1, "db\n")
    assert "ingle: web: it is in error: the VMM died" in ended.err
    assert "ingle: ghost: there is no such VM" in ended.err


async def test_what_it_does_not_know_is_wrong_usage(isolated: Ingle) -> None:
    refused = await isolated("vm", "wait", "web", "--for", "happy")
    assert (refused.code, "healthy, gone" in " ".join(refused.err.split())) == (2, True)

"""Changes of what a VM is, and what they leave when they fail."""

import pytest

from contract.cli.conftest import Ingle
from contract.cli.world import World
from ingle.v1 import vm_pb2


async def test_a_vm_is_renamed(ingle: Ingle, world: World) -> None:
    vm = world.add_vm("web")
    renamed = await ingle("vm", "rename", "web", "shop")
    assert (renamed.code, renamed.text, vm.name) == (0, "shop\n", "shop")


async def test_with_restart_the_server_is_asked_to_stop_and_start_for_it(ingle: Ingle, world: World) -> None:
    """It alone does all of that: a command that is killed leaves nothing half-way."""
    vm = world.add_vm("web")
    changed = await ingle("vm", "update", "--restart", "--timeout", "5s", "--memory", "1G", "web")
    assert (changed.code, changed.text, vm.memory_bytes) == (0, "web\n", 1 << 30)
    assert [(update.restart, update.timeout.seconds) for update in world.updates] == [(True, 5)]
    assert world.changes == []
    assert (await ingle("vm", "update", "--restart", "--memory", "1G", "web")).code == 0
    assert not world.updates[-1].HasField("timeout")


async def test_without_restart_it_is_refused_and_goes_on(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    assert (await ingle("vm", "update", "--memory", "1G", "web")).code == 1
    assert world.changes == []


async def test_a_stopped_vm_stays_stopped(ingle: Ingle, world: World) -> None:
    vm = world.add_vm("web", vm_pb2.VM_STATE_STOPPED)
    assert (await ingle("vm", "update", "--restart", "--memory", "1G", "web")).code == 0
    assert (vm.state, world.changes) == (vm_pb2.VM_STATE_STOPPED, [])


async def test_the_old_word_for_it_works(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    assert (await ingle("vm", "set", "web", "--name", "shop")).text == "shop\n"


@pytest.mark.parametrize("command", [("run", "--rm"), ("exec", "web")])
async def test_variables_come_from_files_and_what_is_typed_counts_more(
    ingle: Ingle, world: World, command: tuple[str, ...], tmp_path: "object"
) -> None:
    world.add_vm("web")
    file = f"{tmp_path}/app.env"
    with open(file, "w") as written:  # noqa: ASYNC230
        written.write("\ufeff# ours\n\n  A=from file\r\nB='kept as it is' # all of it\nHOME\nNOT_SET_HERE\nC=c=d\n")
    name, *rest = command
    ran = await ingle(name, "--env-file", file, "-e", "A=typed", *rest, "--", "true")
    assert ran.code == 0, ran.err
    env = world.created[0].env if name == "run" else world.execs[0].env
    expected = {"A": "typed", "B": "'kept as it is' # all of it", "HOME": ingle.environment["HOME"], "C": "c=d"}
    assert dict(env) == expected


async def test_a_line_that_is_no_variable_is_named(ingle: Ingle, world: World, tmp_path: "object") -> None:
    file = f"{tmp_path}/app.env"
    with open(file, "w") as written:  # noqa: ASYNC230
        written.write("A=1\nexport B=2\n")
    refused = await ingle("vm", "create", "--env-file", file)
    assert (refused.code, world.created) == (2, [])
    assert f"{file}:2" in "".join(refused.err.split())
    missing = await ingle("vm", "create", "--env-file", f"{tmp_path}/ghost")
    assert (missing.code, "No such file" in " ".join(missing.err.split())) == (2, True)

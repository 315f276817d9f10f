"""What lists and looks show, in whose form, and of which things."""

import json

import pytest

from contract.cli.conftest import Ingle
from contract.cli.world import OP_ID, World
from ingle.v1 import operation_pb2, vm_pb2


@pytest.fixture
def three(world: World) -> World:
    """VMs that differ."""
    world.add_vm("web", image_name="debian:bookworm", network="shop", labels={"team": "a", "ci": ""})
    world.add_vm("worker", image_name="debian:trixie", network="shop", env={"A": "1"})
    world.add_vm("db", vm_pb2.VM_STATE_STOPPED, image_name="debian:bookworm", network="user")
    return world


async def names(ingle: Ingle, *arguments: str) -> list[str]:
    listed = await ingle(*arguments)
    assert (listed.code, listed.err) == (0, "")
    return listed.text.split()


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (["name=web"], ["web"]),
        (["name=w*"], ["web", "worker"]),
        (["image=debian:bookworm"], ["web", "db"]),
        (["network=shop", "image=debian:bookworm"], ["web"]),
        (["name=web", "name=db"], ["web", "db"]),
        (["name=ghost"], []),
        (["state=running"], ["web", "worker"]),
        (["state=running", "label=ci"], ["web"]),
    ],
)
async def test_a_list_of_vms_is_filtered(ingle: Ingle, three: World, filters: list[str], left: list[str]) -> None:
    options = [word for each in filters for word in ("--filter", each)]
    assert await names(ingle, "vm", "list", "-q", *options) == left


async def test_a_template_is_text_around_fields(ingle: Ingle, three: World) -> None:
    listed = await ingle("ps", "--format", "{{.Name}}: {{.vcpus}} {{json .env}} {{.started_at}}|")
    assert listed.text.splitlines() == ["web: 1 {} |", 'worker: 1 {"A": "1"} |', "db: 1 {} |"]


async def test_a_template_can_be_a_table(ingle: Ingle, three: World) -> None:
    listed = await ingle("vm", "list", "--format", r"table {{.name}}\t{{.image_name}}", "--filter", "name=w*")
    assert listed.text.splitlines() == ["NAME    IMAGE NAME", "web     debian:bookworm", "worker  debian:trixie"]


async def test_json_is_one_list_and_jsonl_a_line_each(ingle: Ingle, three: World) -> None:
    whole = json.loads((await ingle("vm", "list", "--format", "json")).out)
    assert whole == json.loads((await ingle("vm", "list", "--json")).out)
    lines = (await ingle("vm", "list", "--format", "jsonl")).text.splitlines()
    assert [json.loads(line) for line in lines] == whole


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "{{.nmae}}"], "there is no .nmae; the fields of it: id, name"),
        (["--format", "nice"], "'{{.name}}'"),
        (["--format", "{{.name"], "braces"),
        (["--filter", "colour=red"], "state=, name=, label=, image=, network="),
        (["--filter", "web"], "state=, name="),
        (["--filter", "state=sleeping"], "running"),
        (["--quiet", "--format", "{{.name}}"], "--format, which has all of it"),
        (["--json", "--format", "{{.name}}"], "does not go with --json"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_a_server_is_asked(
    isolated: Ingle, arguments: list[str], said: str
) -> None:
    refused = await isolated("vm", "list", *arguments)
    assert (refused.code, refused.out) == (2, b"")
    assert said in " ".join(refused.err.split())


async def test_one_vm_is_shown_in_the_form_that_was_asked_for(ingle: Ingle, three: World) -> None:
    shown = await ingle("vm", "show", "--format", "{{.id}} {{.activity.execs}}", "web")
    assert shown.text == "000000000001 1\n"
    assert json.loads((await ingle("vm", "show", "--format", "json", "web")).out)["name"] == "web"
    assert (await ingle("vm", "show", "--format", "{{.activity.execs}}", "db")).text == "\n"


async def test_inspect_tells_all_of_several_as_a_list_though_one_is_not_there(ingle: Ingle, three: World) -> None:
    told = await ingle("vm", "inspect", "web", "ghost", "db")
    assert told.code == 1
    assert [vm["name"] for vm in json.loads(told.out)] == ["web", "db"]
    assert told.err.startswith("ingle: ghost: ")
    assert (await ingle("vm", "inspect", "--format", "{{.name}}", "db", "web")).text == "db\nweb\n"


async def test_other_lists_have_the_same_options(ingle: Ingle, three: World) -> None:
    assert await names(ingle, "image", "list", "-q", "--filter", "name=debian*") == ["base"]
    assert await names(ingle, "image", "list", "--format", '{{join .names "+"}}') == ["base+debian:bookworm"]
    assert await names(ingle, "image", "catalog", "-q", "--filter", "name=*trixie") == ["debian:trixie"]
    assert await names(ingle, "kernel", "list", "--format", "{{.id}}") == ["cd" * 32]
    assert await names(ingle, "vm", "ports", "web", "-q", "--filter", "proto=udp") == ["53"]


async def test_ids_are_shown_as_a_whole_when_asked_for(ingle: Ingle, three: World) -> None:
    assert ("ab" * 32 in (await ingle("image", "list")).text, "ab" * 6 in (await ingle("image", "list")).text) == (
        False,
        True,
    )
    assert "ab" * 32 in (await ingle("image", "list", "--no-trunc")).text


async def test_operations_are_filtered_by_what_they_changed_and_how_they_ended(ingle: Ingle, world: World) -> None:
    vm = world.add_vm("web")
    for number, state in enumerate((operation_pb2.OPERATION_STATE_FAILED, operation_pb2.OPERATION_STATE_SUCCEEDED)):
        world.operations.append(operation_pb2.Operation(id=f"{OP_ID[:-1]}{number}", target_id=vm.id, state=state))
    world.operations.append(operation_pb2.Operation(id="op-other", state=operation_pb2.OPERATION_STATE_FAILED))
    found = await names(ingle, "operation", "list", "-q", "--filter", "target=web", "--filter", "state=failed")
    assert found == [f"{OP_ID[:-1]}0"]

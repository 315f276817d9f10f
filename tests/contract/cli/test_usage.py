"""Wrong usage: nothing happens, and it is said what was meant."""

import json

import pytest

from contract.cli.conftest import Ingle
from contract.cli.world import World


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("vm run debian:bookworm", "ingle vm run --image debian:bookworm"),
        ("run --rm ubuntu sh", "ingle run --rm --image ubuntu -- sh"),
        ("run --rm base sh", "ingle run --rm --image base -- sh"),
        ("vm run -v /a:/b base ls", "ingle vm cp"),
        ("vm run --volume /a:/b ls", "ingle vm cp"),
        ("vm create web", "--name web"),
        ("vm create debian:bookworm", "--image debian:bookworm"),
        ("stop web", "ingle vm stop web"),
        ("rm web", "ingle vm rm web"),
        ("vm pause web", "none is paused"),
        ("images", "ingle image list"),
        ("vm cp a:/etc/motd b:/tmp/new", "ingle vm file cat a /etc/motd | ingle vm file write b /tmp/new"),
        ("kernel inspect debian", "ingle kernel show debian"),
    ],
)
async def test_a_habit_of_other_tools_costs_no_boot(ingle: Ingle, world: World, typed: str, said: str) -> None:
    refused = await ingle(*typed.split())
    assert refused.code == 2
    assert said in refused.err
    assert (world.created, world.changes, world.execs) == ([], [], [])


async def test_two_dashes_say_that_it_is_a_command_after_all(ingle: Ingle, world: World) -> None:
    assert (await ingle("vm", "run", "--rm", "--", "debian:bookworm")).code == 127
    assert (await ingle("vm", "run", "--rm", "--image", "debian:bookworm", "true")).code == 0
    assert [spec.image for spec in world.created] == ["", "debian:bookworm"]


@pytest.mark.parametrize(
    "typed",
    [
        "vm lst --json",
        "vm stop --json",
        "vm run --json -v /a:/b ls",
        "vm list --json --nonsense",
        "vm create --vcpu x --json",
    ],
)
async def test_wrong_usage_is_json_too_when_asked_for(ingle: Ingle, typed: str) -> None:
    refused = await ingle(*typed.split())
    assert (refused.code, refused.out) == (2, b"")
    error = json.loads(refused.err)["error"]
    assert error["reason"] == "INVALID_ARGUMENT"
    assert error["message"]
    assert error["remedy"].startswith("ingle ")
    assert error["remedy"].endswith(" --help")


async def test_ls_is_a_list_of_vms(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    assert (await ingle("ls", "-q")).text == "web\n"

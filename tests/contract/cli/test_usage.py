"""Wrong usage: nothing happens, and it is said what was meant."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from contract.cli.conftest import Ingle
from contract.cli.world import World
from ingle.cli.app import app
from ingle.cli.options import Settings


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
        ("vm unpause web", "ingle vm resume web"),
        ("images", "ingle image list"),
        ("vm cp a:/etc/motd b:/tmp/new", "ingle vm file cat a /etc/motd | ingle vm file write b /tmp/new"),
        ("kernel info debian", "ingle kernel show debian"),
    ],
)
async def test_a_habit_of_other_tools_costs_no_boot(ingle: Ingle, world: World, typed: str, said: str) -> None:
    refused = await ingle(*typed.split())
    assert refused.code == 2
    assert said in refused.err
    assert (world.created, world.changes, world.execs) == ([], [], [])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("vm fork web -n 0", "0 forks are none: give 1 or more"),
        ("vm create --pause-after 0", "'0' is no time at all: give at least a second, or never"),
        ("vm set web --delete-after 0s", "'0s' is no time at all: give at least a second, or never"),
        ("vm create --disk-bandwidth fast", "'fast' is not a size"),
        ("vm set web --disk-iops some", "'some' is not a whole number"),
    ],
)
async def test_what_could_mean_only_what_nobody_wants_is_wrong_usage(
    ingle: Ingle, world: World, typed: str, said: str
) -> None:
    refused = await ingle(*typed.split())
    assert (refused.code, said in refused.err) == (2, True), refused.err
    assert (world.created, world.changes) == ([], [])


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


@pytest.mark.parametrize(
    ("typed", "remedy"),
    [
        ("images", "ingle image list"),
        ("inspect web", "ingle vm inspect web"),
        ("logs -f web", "ingle vm logs -f web"),
        ("vm lst", "ingle vm --help"),
    ],
)
async def test_the_remedy_of_a_command_of_other_tools_is_ours(ingle: Ingle, typed: str, remedy: str) -> None:
    refused = await ingle(*typed.split())
    assert (refused.code, refused.out) == (2, b"")
    assert f"remedy: {remedy}\n" in refused.err


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("vm exec web", "Missing argument 'COMMAND'. For the login shell: ingle shell web\n"),
        ("vm show", "Missing argument 'VM'. Name, id, or a unique prefix of an id.\n"),
        ("vm wait web", "Missing option '--for'. A state (creating, "),
        ("vm cp a", "Missing argument 'DESTINATION'. VM:PATH, a path on this machine, or - "),
        ("completion", "Missing argument 'SHELL'. "),
        ("vm update web", "nothing to change; give one of --name, --vcpu, "),
    ],
)
async def test_who_leaves_something_out_is_told_what_belongs_there(ingle: Ingle, typed: str, told: str) -> None:
    refused = await ingle(*typed.split())
    assert (refused.code, refused.out) == (2, b"")
    assert told in refused.err


async def test_ls_is_a_list_of_vms(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    assert (await ingle("ls", "-q")).text == "web\n"


BAD_TEXTS = {
    "env": "=x",
    "env_file": "/no/such/file",
    "publish": "nonsense",
    "label": "=x",
    "ulimit": "nonsense",
    "ssh_key": "/no/such/file",
    "format": "{{",
    "filter": "nonsense",
    "filters": "nonsense",
    "rules": "nonsense:",
}
"""By the names of parameters: what those that are texts can't be."""

NEEDED = {"wish": "running"}


def commands(command: Any, context: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All that do something."""
    if isinstance(command, TyperGroup):
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), context, *path, name)
    else:
        yield path, command


def bad_command_lines() -> Iterator[list[str]]:
    """For each command, one with each of its parameters as it can't be, and all that it needs else."""
    root = get_command(app)
    for path, command in commands(root, typer.Context(root, info_name="ingle", obj=Settings())):
        for bad in command.params:
            if getattr(bad, "is_flag", False):
                continue
            name = bad.name.removesuffix("_")
            value = BAD_TEXTS.get(name) if bad.type.name == "str" else "no-such-value"
            if value is None:
                continue
            options: list[str] = []
            arguments: list[str] = []
            for each in command.params:
                given = value if each is bad else NEEDED.get(each.name, "x") if each.required else None
                if given is not None and each.param_type_name == "argument":
                    arguments.append(given)
                elif given is not None:
                    options += [each.opts[0], given]
            yield [*path, *options, *arguments]


def test_a_bad_value_is_wrong_usage_whatever_the_command_and_no_server_is_asked(tmp_path: Path) -> None:
    """With a server's refusal it is 1: here is none, and who asks for one ends with that."""
    socket = {"INGLE_SOCKET": f"{tmp_path}/none.sock", "INGLE_MODE": "user"}
    lines = list(bad_command_lines())
    assert len(lines) > 100
    with subprocess.Popen(
        [sys.executable, "-m", "contract.cli.forked"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as forked:
        assert forked.stdin is not None
        assert forked.stdout is not None
        wrong = []
        for line in lines:
            print(json.dumps([socket, line]), file=forked.stdin, flush=True)
            code, out, err = json.loads(forked.stdout.readline())
            if (code, out) != (2, ""):
                wrong.append((line, code, out, err))
        forked.stdin.close()
    assert wrong == [], "\n".join(map(str, wrong))

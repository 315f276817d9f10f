"""On a terminal: progress is drawn on one line that goes away, and questions are asked."""

import asyncio
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect  # type: ignore[import-untyped]

from contract.cli.conftest import Ingle
from contract.cli.world import World
from ingle.v1 import vm_pb2

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@contextmanager
def terminal(ingle: Ingle, *arguments: str) -> Iterator["pexpect.spawn[str]"]:
    environment = {**ingle.environment, "TERM": "xterm"}
    child = pexpect.spawn(
        sys.executable,
        ["-m", "ingle.cli", *arguments],
        env=environment,
        encoding="utf-8",
        timeout=20,
        dimensions=(24, 100),
    )
    try:
        yield child
    finally:
        child.close(force=True)


async def expect(child: "pexpect.spawn[str]", text: str) -> None:
    await asyncio.to_thread(child.expect_exact, text)


async def ended(child: "pexpect.spawn[str]") -> tuple[int | None, str]:
    """Exit code, and all that was still to come."""
    await asyncio.to_thread(child.expect, pexpect.EOF)
    await asyncio.to_thread(child.wait)
    return child.exitstatus, child.before or ""


async def test_a_create_shows_its_stage_and_leaves_the_name_alone(ingle: Ingle, world: World) -> None:
    with terminal(ingle, "vm", "create", "--name", "web") as child:
        await expect(child, "Booting the kernel")
        code, rest = await ended(child)
    assert code == 0
    assert SHOW_CURSOR in rest
    assert rest.splitlines()[-1].endswith("web")


async def test_ctrl_c_during_a_create_undoes_it_and_gives_the_cursor_back(ingle: Ingle, world: World) -> None:
    world.hold_creates = True
    with terminal(ingle, "vm", "run", "--rm", "--", "true") as child:
        await expect(child, HIDE_CURSOR)
        await expect(child, "Booting the kernel")
        child.sendintr()
        code, rest = await ended(child)
    assert code == 130
    assert SHOW_CURSOR in rest
    assert world.cancelled[0] == "by asking"


async def test_ctrl_z_during_a_create_lends_the_cursor_to_the_shell(ingle: Ingle, world: World) -> None:
    world.hold_creates = True
    with terminal(ingle, "vm", "create") as child:
        for _ in range(2):
            await expect(child, HIDE_CURSOR)
            await expect(child, "Booting the kernel")
            child.sendcontrol("z")
            await expect(child, SHOW_CURSOR)  # and it goes on: without a shell nobody could let it
        await expect(child, HIDE_CURSOR)
        child.sendintr()
        code, rest = await ended(child)
    assert code == 130
    assert SHOW_CURSOR in rest


async def test_how_far_a_stage_is_shows_when_the_server_knows(ingle: Ingle, world: World) -> None:
    world.hold_creates, world.held_fraction = True, 0.25
    with terminal(ingle, "vm", "create") as child:
        await expect(child, "Booting the kernel 25%")
        child.sendintr()
        await ended(child)


async def test_an_unknown_fraction_is_not_shown_as_zero(ingle: Ingle, world: World) -> None:
    world.hold_creates = True
    with terminal(ingle, "vm", "create") as child:
        await expect(child, "Booting the kernel")
        await expect(child, "0:00:01")
        shown = child.before or ""
        child.sendintr()
        _, rest = await ended(child)
    assert "%" not in shown + rest


async def test_a_guest_command_has_the_terminal_to_itself(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    with terminal(ingle, "vm", "exec", "web", "--", "echo", "hello") as child:
        assert await ended(child) == (0, "hello\r\n")


async def test_ctrl_c_goes_to_the_guest_command(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    script = "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done"
    with terminal(ingle, "vm", "exec", "web", "--", "sh", "-c", script) as child:
        await expect(child, "ready")
        child.sendintr()
        code, _ = await ended(child)
    assert code == 9


async def test_a_terminal_is_not_stdin_unless_asked_for(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    with terminal(ingle, "vm", "exec", "web", "--", "cat") as child:
        assert (await ended(child))[0] == 0
    with terminal(ingle, "vm", "exec", "-i", "web", "--", "cat") as child:
        child.setecho(False)
        child.sendline("typed")
        await expect(child, "typed\r\n")
        child.sendeof()
        assert (await ended(child))[0] == 0


async def test_prune_asks_and_takes_no_for_an_answer(ingle: Ingle, world: World) -> None:
    world.add_vm("done", vm_pb2.VM_STATE_STOPPED)
    with terminal(ingle, "vm", "prune") as child:
        await expect(child, "Delete done?")
        child.sendline("n")
        assert (await ended(child))[0] == 1
    assert len(world.vms) == 1
    with terminal(ingle, "vm", "prune") as child:
        await expect(child, "Delete done?")
        child.sendline("y")
        assert (await ended(child))[0] == 0
    assert world.vms == {}


async def test_a_command_on_this_terminal_goes_with_its_vm_or_leaves_it(ingle: Ingle, world: World) -> None:
    for options in (["-t", "--rm"], ["-it", "--name", "kept"]):
        with terminal(ingle, "vm", "run", *options, "--", "top", "-b") as child:
            code, shown = await ended(child)
        assert code == 7
        assert "['top', '-b']" in shown
    assert [list(start.create.argv) for start in world.attached] == [["top", "-b"]] * 2
    assert all(start.create.end_with_viewer for start in world.attached)
    assert [vm.name for vm in world.vms.values()] == ["kept"]
    assert "ingle vm delete -f kept" in shown


async def test_a_terminal_hears_once_that_vms_are_emulated_and_who_asked_for_it_does_not(
    ingle: Ingle, world: World, tmp_path: Path
) -> None:
    world.running_acceleration = vm_pb2.ACCELERATION_TCG
    (tmp_path / "ingle").mkdir(mode=0o700)
    run = f"{shlex.quote(sys.executable)} -m ingle.cli vm run"
    script = f"{run} --accel tcg -- true; echo ASKED; {run} -- true; echo FIRST; {run} -- true; echo SECOND"
    child = pexpect.spawn(
        "sh",
        ["-c", script],
        env={**ingle.environment, "TERM": "xterm", "XDG_RUNTIME_DIR": str(tmp_path)},
        encoding="utf-8",
        timeout=60,
        dimensions=(24, 200),
    )
    try:
        _, said = await ended(child)
    finally:
        child.close(force=True)
    asked, _, rest = said.partition("ASKED")
    first, _, second = rest.partition("FIRST")
    assert "emulates" not in asked
    assert "emulates VMs (tcg)" in first
    assert "ingle doctor" in first
    assert "emulates" not in second

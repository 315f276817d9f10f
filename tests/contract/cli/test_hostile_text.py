"""Whatever a server, a guest or another user put into a text: no command gives it to a terminal as it is."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from contract.cli.conftest import Ingle
from contract.cli.hostile_server import HOSTILE, PIECE
from ingle.cli.app import app

_OURSELVES = {
    "system install": "changes this machine",
    "system uninstall": "changes this machine",
    "system upgrade": "changes this machine",
    "system restart": "changes this machine",
    "server stop": "ends the server",
    "server start": "starts another one",
    "server restart": "ends the server",
    "shell": "needs a terminal",
    "vm shell": "needs a terminal",
    "vm session attach": "needs a terminal",
    "completion": "prints a script of ours",
    "help": "prints what is ours",
    "config set": "changes this machine",
    "config unset": "changes this machine",
    "config edit": "changes this machine",
}
"""Commands that are not run, and why."""

_ARGUMENTS = {
    "exec": ["web", "--", "true"],
    "vm exec": ["web", "--", "true"],
    "run": ["--", "true"],
    "vm run": ["--", "true"],
    "vm cp": ["web:/x", "there"],
    "vm forward": ["--stdio", "web", "80"],
    "vm wait": ["--for", "gone", "--timeout", "1s", "web"],
    "vm update": ["--name", "other", "web"],
    "image register": ["--name", "new", "file"],
    "kernel import": ["file"],
}
"""Of commands for which a word for each argument will not do."""


_WRONG = (["--x"], ["x"], ["vm", "x"], ["vm", "run", "--memory", "x"], ["vm", "run", "--x"], ["vm", "cp", "x", "y"])
"""Command lines that are no command's, with text of somebody else's."""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str], bool]]:
    """Each command's path, arguments for it, and whether it has --json."""
    for name in group.commands:
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
            continue
        full = " ".join((*path, name))
        needed = [
            ["--" + parameter.name.replace("_", "-"), "x"] if parameter.param_type_name == "option" else ["web"]
            for parameter in command.params
            if parameter.required
        ]
        arguments = _ARGUMENTS.get(full, [word for words in needed for word in words])
        yield full, arguments, any("--json" in parameter.opts for parameter in command.params)


class Talking:
    """A process that answers each line with a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        return await self.answer()

    async def answer(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(120):
            line = await self.process.stdout.readline()
        assert line
        return line.decode()


@asynccontextmanager
async def talking(module: str, *arguments: str, environment: dict[str, str], directory: Path) -> AsyncIterator[Talking]:
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), *sys.path]))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
        env={**environment, "PYTHONPATH": path},
        cwd=directory,
    )
    try:
        yield Talking(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("answering", ["0", "1", "3", "refuse"])
async def test_no_command_prints_what_a_terminal_obeys(isolated: Ingle, tmp_path: Path, answering: str) -> None:
    (tmp_path / "file").write_text("x")
    socket = str(tmp_path / "api.sock")
    environment = {**isolated.environment, "INGLE_SOCKET": socket}
    async with (
        talking("contract.cli.hostile_server", socket, environment=environment, directory=tmp_path) as server,
        talking("contract.cli.forked", environment=environment, directory=tmp_path) as ingle,
    ):
        await server.answer()
        await server.ask(answering)
        seen = 0
        for command, arguments, has_json in commands(get_command(app)):
            if command in _OURSELVES:
                continue
            for extra in (["--json"], []) if has_json else ([],):
                argv = [*command.split(), *extra, *arguments]
                code, out, err = json.loads(await ingle.ask(json.dumps([{}, argv])))
                assert obeyed(out + err) == [], (argv, out, err)
                assert "fault of ingle" not in err, (argv, err)
                assert "Traceback" not in err, (argv, err)
                assert code >= 0, argv
                seen += "\N{REPLACEMENT CHARACTER}" in out + err or "\\u202e" in out + err
                if extra and code == 0 and out != PIECE.decode():
                    json.loads(out)
        assert seen > 20
        for argv in (
            ["--x"],
            ["x"],
            ["vm", "x"],
            ["vm", "run", "--memory", "x"],
            ["vm", "run", "--x"],
            ["vm", "exec", "-u"],
        ):
            wrong = [*argv[:-1], argv[-1].replace("x", HOSTILE.replace("\x00", ""))]
            _, out, err = json.loads(await ingle.ask(json.dumps([{}, wrong])))
            assert obeyed(out + err) == [], wrong
        for words in ("vm show ", "vm cp web:/", "image show ", "operation show ", "vm session kill web "):
            typed = {"COMP_WORDS": f"ingle {words}", "COMP_CWORD": str(len(words.split(" ")))}
            asked = json.dumps([{**typed, "_INGLE_COMPLETE": "complete_bash"}, []])
            assert json.loads(await ingle.ask(asked))[1:] == ["\n", ""], words


def obeyed(text: str) -> list[str]:
    return [char for char in text if not char.isprintable() and char not in "\t\n"]

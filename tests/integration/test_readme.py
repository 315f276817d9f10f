"""README is typed, word for word, into a shell on a terminal, and what comes out has the shape that README shows."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from free_ports import free_port
from harness import Server, cloned_directory

README = Path(__file__).parents[2] / "README.md"
PROMPT = "typed> "
DETACH = "\x10\x11"  # Ctrl-P Ctrl-Q
GUEST_PROMPT = re.compile(r"(root@\w+:~# )(.*)")
PATIENCE_SECONDS = 240
SLOW = "bookworm-systemd"
# Looked at again until this is in it, as a person does who types faster than something in the guest starts.
LOOKS_AGAIN = {"ingle vm ports web": "perl", "ingle vm logs --tail 1 job": "done"}


@dataclass
class Typed:
    """A command, what it reads from the lines below it, and the lines that README shows of its output."""

    command: str
    shown: list[str] = field(default_factory=list)


def tour() -> Iterator[Typed]:
    """All commands up to the part that installs a package, which is typed in the lab."""
    readme = README.read_text().partition("## For a whole machine")[0]
    for block in re.findall(r"^```\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL):
        typed: Typed | None = None
        end = ""
        for line in block.splitlines():
            if end and typed is not None:
                typed.command += f"\n{line}"
                end = "" if line == end else end
            elif line.startswith("$ "):
                if typed is not None:
                    yield typed
                typed = Typed(line[2:])
                end = line.partition("<<'")[2].rstrip("'")
            elif typed is not None:
                typed.shown.append(line)
        if typed is not None:
            yield typed


def shape(line: str) -> "re.Pattern[str]":
    """What has a digit in it may be anything: a size, an id, a time."""
    line = re.sub(r"(\d) s\b", r"\1", line)
    words = [r"\S+(?: s)?" if re.search(r"\d", word) else re.escape(word) for word in line.split()]
    return re.compile(r"[ \t]+".join(words))


class Shell:
    """A bash on a terminal."""

    def __init__(self, server: Server, directory: Path) -> None:
        environment = {
            **server.env,
            "PATH": f"{Path(sys.executable).parent}:{server.env['PATH']}",
            "HOME": str(directory),
            "INGLE_MODE": "user",
            "PS1": PROMPT,
            "PS2": "",
            "TERM": "dumb",
        }
        self._bash = pexpect.spawn(
            "bash",
            ["--norc", "--noprofile", "--noediting"],
            cwd=str(directory),
            env=environment,
            echo=False,
            encoding="utf-8",
            codec_errors="replace",
            timeout=PATIENCE_SECONDS,
            dimensions=(30, 200),
        )
        self._bash.expect_exact(PROMPT)

    def type(self, typed: Typed) -> None:
        """Type it, and wait for all that README shows, and for the next prompt."""
        self._bash.sendline(typed.command)
        waited: list[str] = []
        inside = False
        for line in typed.shown:
            if guest := GUEST_PROMPT.fullmatch(line):
                inside = True
                self._bash.expect_exact(guest[1])
                self._bash.sendline(guest[2])
            elif inside and line.startswith("detached"):
                self._expect_all(waited)
                self._bash.send(DETACH)
                waited = [line]
            else:
                waited.append(line)
        self._expect_all([*waited, PROMPT])

    def _expect_all(self, lines: list[str]) -> None:
        """They may come in any order: some are of a command in the background."""
        said, missing = "", {line: re.compile(re.escape(line)) if line == PROMPT else shape(line) for line in lines}
        while missing:
            try:
                said += self._bash.read_nonblocking(4096, PATIENCE_SECONDS)
            except (pexpect.TIMEOUT, pexpect.EOF):
                pytest.fail(f"waited for {list(missing)}; there came:\n{said}")
            missing = {line: pattern for line, pattern in missing.items() if not pattern.search(said)}

    def close(self) -> None:
        self._bash.close(force=True)


def test_readme_can_be_typed_from_top_to_bottom(prepared: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with cloned_directory(prepared) as root:
        server = Server(root)
        shell = Shell(server, tmp_path)
        ports = {"8080": str(free_port()), "8081": str(free_port())}
        try:
            for typed in tour():
                if word := LOOKS_AGAIN.get(typed.command):
                    typed.command = f"until {typed.command} | tee seen | grep -q {word}; do sleep 0.2; done; cat seen"
                if SLOW in typed.command and not pytestconfig.getoption("slow"):
                    continue
                for shown, free in ports.items():
                    typed.command = typed.command.replace(shown, free)
                shell.type(typed)
        finally:
            shell.type(Typed("ingle vm delete -f $(ingle ps -q); ingle server stop", ["stopped (pid 1)"]))
            shell.close()
        assert server.vmm_processes() == {}

"""The one way to run a tool (mke2fs, mmdebstrap, apt-get, qemu-img, …): something that ends by itself.

A tool never outlives the server that wanted it: cancelling kills it and all that it started; a server that is killed
takes it along (PR_SET_PDEATHSIG); and what survives even that carries a mark by which the next server finds it (see
leftovers.py). Processes that are meant to outlive the server are in process.py.
"""

import asyncio
import os
import secrets
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ingle.api_server.host import leftovers
from ingle.api_server.host.context import current_operation
from ingle.api_server.host.descriptors import lower_limit
from ingle.api_server.model.errors import HostProblem, Reason, ToolFailed

PACKAGES: Mapping[str, str] = {
    "apt-cache": "apt",
    "apt-config": "apt",
    "apt-get": "apt",
    "bwrap": "bubblewrap",
    "cp": "coreutils",
    "debugfs": "e2fsprogs",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "e2fsck": "e2fsprogs",
    "fakechroot": "fakechroot",
    "fakeroot": "fakeroot",
    "mke2fs": "e2fsprogs",
    "mksquashfs": "squashfs-tools",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "prlimit": "util-linux",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "resize2fs": "e2fsprogs",
    "setpriv": "util-linux",
    "tar": "tar",
    "unshare": "util-linux",
}
"""Which Debian package has a program."""

_TAIL_LINES = 40
_LINES_IN_MESSAGE = 10
_LONGEST_LINE = 64 * 1024
_LONGEST_OUTPUT = 1 << 20

# The last is what GNU tar says.
_SAID_WHEN_FULL = ("No space left on device", "Disk quota exceeded", "Wrote only ")

# An ordinary user's PATH on Debian lacks the sbin directories, where mke2fs and depmod are.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def search_path() -> str:
    """Our PATH, with the sbin directories at its end."""
    directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*directories, *(sbin for sbin in _SBIN if sbin not in directories)])


def installed(program: str) -> bool:
    """Whether `program` can be run."""
    return shutil.which(program, path=search_path()) is not None


def require(program: str) -> str:
    """The path of `program`. Raises HostProblem(DEPENDENCY_MISSING) that names the package to install."""
    path = shutil.which(program, path=search_path())
    if path is None:
        raise HostProblem(
            Reason.DEPENDENCY_MISSING,
            f"the program {program!r} is not installed (Debian package {PACKAGES.get(program, program)})",
            install_hint(program),
        )
    return path


def install_hint(program: str) -> str:
    """The command that installs it on Debian."""
    return f"sudo apt install {PACKAGES.get(program, program)}"


class Tools:
    """Runs tools for the server whose state is in `state_root`."""

    def __init__(self, state_root: Path) -> None:
        self._state_root = state_root

    async def run(
        self,
        argv: Sequence[str | Path],
        *,
        directory: Path | None = None,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        stdin: bytes = b"",
        on_output: Callable[[str], None] | None = None,
        accept: Collection[int] = (0,),
    ) -> bytes:
        """Run `argv` to its end and answer its stdout.

        It gets `stdin`, our environment with `env` on top, untranslated messages, and a session of its own. `on_line`
        is called with each line of its stderr; `on_output` with each of its stdout, of at most 1 MiB, which then is
        not answered. Cancelling kills everything it started and waits for that.

        Raises HostProblem (DEPENDENCY_MISSING; DISK_FULL), and ToolFailed with the end of what it said when its exit
        code is not one to `accept`."""
        program = str(argv[0])
        mark = f"INGLE_TOOL={secrets.token_hex(8)}"
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        process = await asyncio.create_subprocess_exec(
            *(require("setpriv"), "--pdeathsig", "KILL", "--", require(program), *argv[1:]),
            cwd=directory,
            env=self._environment(mark, env or {}),
            stdin=PIPE if stdin else DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            limit=_LONGEST_LINE,
            start_new_session=True,
        )
        lower_limit(process.pid)
        try:
            stdout, _, _, _ = await asyncio.gather(
                _read_all(process) if on_output is None else _read_output(process, on_output),
                _read_lines(process, tail, on_line),
                _write(process, stdin),
                process.wait(),
            )
        except BaseException:
            await _uninterrupted(_kill(process, mark))
            raise
        assert process.returncode is not None
        if process.returncode not in accept:
            said = list(tail) or stdout.decode(errors="replace").splitlines()[-_TAIL_LINES:]
            raise _failure(program, process.returncode, said)
        return stdout

    @property
    def environment(self) -> dict[str, str]:
        """For what else is to be ended by the next server, if this one can't: ours, and the mark of its state."""
        return {**os.environ, leftovers.STATE_VARIABLE: str(self._state_root)}

    def _environment(self, mark: str, extra: Mapping[str, str]) -> dict[str, str]:
        name, _, value = mark.partition("=")
        return {
            **os.environ,
            "PATH": search_path(),
            "LC_ALL": "C.UTF-8",
            "INGLE_OPERATION": current_operation.get(),
            leftovers.STATE_VARIABLE: str(self._state_root),
            name: value,
            **extra,
        }


async def _read_all(process: Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.read()


async def _read_output(process: Process, on_output: Callable[[str], None]) -> bytes:
    """Raises ToolFailed when a line is too long."""
    assert process.stdout is not None
    rest = b""
    while chunk := await process.stdout.read(_LONGEST_LINE):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            on_output(line.decode())
        if len(rest) > _LONGEST_OUTPUT:
            raise ToolFailed(Reason.TOOL_FAILED, f"a tool has said a line of more than {_LONGEST_OUTPUT} bytes")
    return rest


async def _write(process: Process, stdin: bytes) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has ended, and tells why
            process.stdin.write(stdin)
            await process.stdin.drain()
        process.stdin.close()


async def _read_lines(process: Process, tail: deque[str], on_line: Callable[[str], None] | None) -> None:
    """Lines end with a newline or, as progress does, a carriage return; one that is too long comes in pieces."""
    assert process.stderr is not None
    rest = b""
    while chunk := await process.stderr.read(_LONGEST_LINE):
        *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        for line in lines:
            _take_line(line, tail, on_line)
    _take_line(rest, tail, on_line)


def _take_line(line: bytes, tail: deque[str], on_line: Callable[[str], None] | None) -> None:
    text = line.decode(errors="replace").rstrip()
    if text:
        tail.append(text)
        if on_line is not None:
            on_line(text)


async def _kill(process: Process, mark: str) -> None:
    """Kill the tool's group, then what left the group but still carries the mark, and reap the tool."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await leftovers.kill_marked(mark)
    await process.wait()


async def _uninterrupted(work: Coroutine[None, None, None]) -> None:
    """Do it to its end; whoever cancels us once more gets the first cancellation when it is done."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()


def _failure(program: str, code: int, tail: list[str]) -> HostProblem | ToolFailed:
    ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
    message = "\n".join([f"{program} {ended}", *tail[-_LINES_IN_MESSAGE:]])
    if any(words in line for words in _SAID_WHEN_FULL for line in tail):
        return HostProblem(Reason.DISK_FULL, f"the disk is full: {message}", "df -h")
    return ToolFailed(Reason.TOOL_FAILED, message)

"""A VMM without a machine: its guest is the agent as an ordinary process, that dies with it.

fake_vmm.py ENGINE AGENT CONTROL_FD ingle-VM_ID [MEMORY]: works in the VM's state directory. On the control socket,
which it is handed open, it greets with its engine's name and then answers one line with another: `boot`, `pause`,
`resume` and `save FILE` with "ok", or, of the last, with the number of an error. It ends with its guest, whose last
words are on the console, and all processes of the guest end with it.

A guest's memory is what tells it from another here, the token that opens its agent, and what a test has put into the
file `guest-ram`: no process of it is kept. A guest from MEMORY, a file that `save` has left, is opened by what opened
the saved one.

It imports nothing of ours, protobuf least of all: that takes longer than all the rest of a start.
"""

import asyncio
import ctypes
import hashlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

AGENT_SOCKET = "agent.sock"
TOKEN_FILE = "agent-token"  # noqa: S105 - where it is
ENV_FILE = "guest-env"
"""What every command in the guest is given: NAME=VALUE, each with a NUL behind it."""
RAM_FILE = "guest-ram"
"""What else is in its memory, for tests to write and to read; absent: nothing."""
_MEMORY = b"ingle's fake memory 2"
_HEAD = 4096

_PAUSE, _RESUME = signal.SIGUSR1, signal.SIGUSR2
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


class Vmm:
    """The one of this process."""

    def __init__(self, engine: str, agent: str, memory: str | None) -> None:
        self._engine = engine
        self._agent = agent
        if memory is not None:
            token, ram = remembered(Path(memory).read_bytes(), engine)
            Path(TOKEN_FILE).write_bytes(token)
            if ram:
                Path(RAM_FILE).write_bytes(ram)
        self._guest: asyncio.subprocess.Process | None = None
        self._ended = asyncio.Event()

    async def run(self, control: socket.socket) -> int:
        """Until the guest has ended: its exit code."""
        servers = [await asyncio.start_unix_server(self._control, sock=control)]
        await self._ended.wait()
        for server in servers:
            server.close()
        assert self._guest is not None
        return await self._guest.wait()

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._engine.encode() + b"\n")
        while line := (await reader.readline()).decode().rstrip("\n"):
            word, _, file = line.partition(" ")
            writer.write(f"{await self._do(word, file)}\n".encode())
        writer.close()

    async def _do(self, word: str, file: str) -> str:
        if word == "boot" or (word == "resume" and self._guest is None):  # one from a memory, which stood still
            await self._boot()
        elif word == "save":
            try:
                ram = Path(RAM_FILE).read_bytes() if Path(RAM_FILE).exists() else b""
                Path(file).write_bytes(memory_of(Path(TOKEN_FILE).read_bytes(), self._engine, ram))
            except OSError as error:
                return str(error.errno)
        elif self._guest is not None:
            self._guest.send_signal({"pause": _PAUSE, "resume": _RESUME}[word])
        return "ok"

    async def _boot(self) -> None:
        _say("fake kernel: booting")
        Path(AGENT_SOCKET).unlink(missing_ok=True)
        self._guest = await asyncio.create_subprocess_exec(
            *(
                self._agent,
                "--pretend",
                "--listen",
                f"unix:{AGENT_SOCKET}",
                "--token-file",
                TOKEN_FILE,
                "--env-file",
                ENV_FILE,
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=partial(_keep, os.getpid()),
        )
        assert self._guest.stdout is not None
        await self._guest.stdout.readline()  # it listens
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        assert self._guest is not None
        if await self._guest.wait() == 0:
            _say("reboot: Power down")
        self._ended.set()


def memory_of(token: bytes, engine: str, ram: bytes) -> bytes:
    """A guest's memory: what it is, its token, and a hash of all; then, in pages of its own, what else there is."""
    content = b"\n".join((_MEMORY, engine.encode(), token.hex().encode()))
    head = content + b"\n" + hashlib.sha256(content + ram).hexdigest().encode()
    return head.ljust(_HEAD, b"\n") + ram if ram else head


def remembered(memory: bytes, engine: str) -> tuple[bytes, bytes]:
    """The token, and what else there is. Exits where it is no whole memory of that engine's."""
    head, ram = memory[:_HEAD].rstrip(b"\n"), memory[_HEAD:]
    content, _, digest = head.rpartition(b"\n")
    if hashlib.sha256(content + ram).hexdigest().encode() != digest:
        sys.exit("the memory is damaged")
    _, of_engine, token = content.split(b"\n")
    if of_engine != engine.encode():
        sys.exit(f"the memory is of engine {of_engine.decode()}")
    return bytes.fromhex(token.decode()), ram


def _keep(vmm: int) -> None:
    """Where a process becomes the guest, become two: one that does, and one that has it end with us, all of it, as the
    processes of a machine do. Who leaves its parent behind, as daemons do, is that one's child as well."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) or libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    heard = {signal.SIGTERM, signal.SIGCHLD, _PAUSE, _RESUME}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    agent = os.fork()
    if agent == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    os.chdir("/")
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))  # what is open in both is waited for
    code = 1
    while os.getppid() == vmm:
        number = signal.sigwait(heard)
        if number == signal.SIGTERM:
            break
        if number in (_PAUSE, _RESUME):
            os.kill(agent, signal.SIGSTOP if number == _PAUSE else signal.SIGCONT)
            continue
        ended = dict(_ended())
        if agent in ended:
            code = ended[agent]
            break
    while children := Path("/proc/thread-self/children").read_text().split():
        for child in children:
            os.kill(int(child), signal.SIGKILL)
            os.waitpid(int(child), 0)
    os._exit(code)


def _ended() -> Iterator[tuple[int, int]]:
    """Children that have, and their exit codes."""
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found[0], os.waitstatus_to_exitcode(found[1]) & 0xFF


def _say(line: str) -> None:
    with Path("console.log").open("a") as console:
        console.write(line + "\n")


if __name__ == "__main__":
    engine, agent, control_fd, _, *memory = sys.argv[1:]
    vmm = Vmm(engine, agent, memory[0] if memory else None)
    sys.exit(asyncio.run(vmm.run(socket.socket(fileno=int(control_fd)))))

"""A live QEMU process."""

import asyncio
import logging
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ingle.api_server.adapters.qemu import command, console
from ingle.api_server.adapters.qemu.qmp import Qmp
from ingle.api_server.host import bounded_log
from ingle.api_server.host.process import Process, cpu_seconds, resident_bytes
from ingle.api_server.model.errors import Reason, ToolFailed
from ingle.api_server.model.guest import AgentEndpoint, Holder, TcpAddress, VsockAddress
from ingle.api_server.ports.engine import VmmUsage, VmPaths

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.05
_LOG_TAIL_BYTES = 2000
_LAST_WORDS_SECONDS = 1.0

# A line of `info usernet`: "TCP[HOST_FORWARD]  10  127.0.0.1 45133  10.0.2.15  1024  0  0". The first is a descriptor.
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+(\d+)\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)")
_BACKLOG = 128
_IO_ERROR = "io-error"  # RunState in QEMU's qapi/run-state.json: a device's werror=stop, or =enospc, the default


class QemuVmm:
    """Implements ports.engine.Vmm."""

    def __init__(self, process: Process, paths: VmPaths, ready: socket.socket | None) -> None:
        self._process = process
        self._paths = paths
        self._ready = ready
        self._qmp: Qmp
        self._agent: AgentEndpoint
        self._shutdown_reason = ""
        self._stalled = False

    async def connect(self, token: bytes, unforwarded: TcpAddress | VsockAddress, seconds: float) -> "QemuVmm":
        """Take up the control connection and find out where the agent is: behind a forwarded port, else `unforwarded`.
        QEMU has `seconds` to answer first.

        Raises ToolFailed(VMM_FAILED), with the end of QEMU's stderr when it is gone."""
        try:
            self._qmp = await Qmp.connect(self._paths.control_socket, self._on_event, seconds)
            # A QEMU that was adopted may have stopped its guest while nobody listened.
            self._stalled = (await self._qmp.execute("query-status"))["status"] == _IO_ERROR
            usernet = await self._qmp.execute("human-monitor-command", **{"command-line": "info usernet"})
        except ToolFailed as error:
            if await self._process.wait(0.2):
                raise self._died() from error
            raise
        forwards = _FORWARD.findall(usernet)
        agents = (TcpAddress(host, int(port)) for _, host, port, guest in forwards if int(guest) == command.AGENT_PORT)
        address = replace(next(agents, unforwarded), holder=Holder(self.pid, self.start_time))
        self._agent = AgentEndpoint(address, token)
        self._lengthen_queues(int(descriptor) for descriptor, *_ in forwards)
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def start_time(self) -> int:
        return self._process.start_time

    @property
    def agent(self) -> AgentEndpoint:
        return self._agent

    @property
    def failure(self) -> str:
        if not self._process.gone or self._shutdown_reason == "guest-shutdown":
            return ""
        if self._shutdown_reason == "guest-reset":
            return console.panic(self._paths)
        return self._died().message

    @property
    def stalled(self) -> bool:
        return self._stalled and not self._process.gone

    @property
    def restarts(self) -> bool:
        return self._shutdown_reason == "guest-reset" and not self.failure and not console.powered_off(self._paths)

    async def boot(self) -> None:
        await self._qmp.execute("cont")

    async def ready(self) -> None:
        if self._ready is None:
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            # Calling earlier is worse than useless: QEMU takes the connection and then tries the guest at its leisure.
            await asyncio.get_running_loop().sock_recv(self._ready, 64)
            self._ready.close()
            self._ready = None
        if await self._process.wait(0):
            raise self._died()

    async def pause(self) -> None:
        await self._qmp.execute("stop")

    async def resume(self) -> None:
        await self._qmp.execute("cont")

    def signal(self, signal: int) -> None:
        self._process.signal(signal)

    async def wait_gone(self, timeout_seconds: float | None = None) -> bool:
        if not await self._process.wait(timeout_seconds):
            return False
        # What QEMU said last, that the guest powered off, may still be on its way through the loop.
        await self._qmp.ended(_LAST_WORDS_SECONDS)
        return True

    def bound_logs(self) -> None:
        logs = (self._paths.console_log, self._paths.vmm_log)
        limit = self._process.file_limit
        if limit is not None and not self._process.gone:
            for log in logs:
                bounded_log.tell_loss(log, limit)
            with suppress(FileNotFoundError):
                bounded_log.level(logs)
                self._process.limit_files(max(limit, bounded_log.limit(logs)))
        for log in logs:
            bounded_log.trim(log)

    def usage(self) -> VmmUsage:
        try:
            return VmmUsage(cpu_seconds(self.pid), resident_bytes(self.pid))
        except FileNotFoundError:
            raise self._died() from None

    async def close(self) -> None:
        if self._ready is not None:
            self._ready.close()
            self._ready = None
        if hasattr(self, "_qmp"):
            await self._qmp.close()
        self._process.close()

    def _lengthen_queues(self, listening: Iterable[int]) -> None:
        """QEMU lets one connection wait to be accepted. The next ones are dropped, and tried again after a second, two,
        four: twenty commands at once then take half a minute."""
        for descriptor in listening:
            try:
                with self._process.take_socket(descriptor) as listener:
                    listener.listen(_BACKLOG)
            except OSError as error:
                log.warning("many connections at once will be slow: %s", error, extra={"pid": self.pid})

    def _on_event(self, name: str, data: dict[str, Any]) -> None:
        if name == "SHUTDOWN":
            self._shutdown_reason = data.get("reason", "")
        elif name == "BLOCK_IO_ERROR" and data.get("action") == "stop":
            log.warning("a guest stands still: its disk could not take a write", extra={"pid": self.pid, **data})
            self._stalled = True
        elif name == "RESUME":
            self._stalled = False

    def _died(self) -> ToolFailed:
        if self._shutdown_reason.startswith("guest-"):
            return ToolFailed(Reason.VMM_FAILED, console.panic(self._paths) or "the guest has shut itself down")
        code = self._process.exit_code
        how = "ended" if code is None else f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
        said = tail(self._paths)
        return ToolFailed(Reason.VMM_FAILED, f"QEMU {how}{': ' + said if said else ''}")


def tail(paths: VmPaths) -> str:
    """The end of what QEMU wrote to its stderr."""
    return bounded_log.read_end(paths.vmm_log, _LOG_TAIL_BYTES).decode(errors="replace").strip()

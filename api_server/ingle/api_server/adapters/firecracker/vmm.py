"""A live Firecracker process."""

import asyncio
import errno
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

from ingle.api_server.adapters.firecracker import machine, metrics
from ingle.api_server.adapters.firecracker.api import Api, NoAnswer, Refused
from ingle.api_server.adapters.firecracker.machine import Setting
from ingle.api_server.adapters.firecracker.memory import Memory, finish, writing
from ingle.api_server.adapters.firecracker.program import number
from ingle.api_server.adapters.firecracker.settle import settled
from ingle.api_server.adapters.vmm import console
from ingle.api_server.adapters.vmm.found import process_name
from ingle.api_server.adapters.vmm.process import VmmProcess
from ingle.api_server.host.process import Process
from ingle.api_server.model.errors import Reason, ToolFailed
from ingle.api_server.model.guest import AgentEndpoint, HybridVsockAddress
from ingle.api_server.model.network import PublishedPort
from ingle.api_server.model.rates import DiskRates
from ingle.api_server.ports.engine import DiskTraffic, VmPaths

_COMES_UP_SECONDS = 0.005  # between looks whether it listens: that is how long it takes
_RETRY_SECONDS = 0.05
_SAVE_SECONDS = _LOAD_SECONDS = 600.0
_END_SECONDS = 0.2
_NOT_STARTED = "Not started"
_ENDING = frozenset({SIGINT, SIGTERM})
_DISK_FULL = "os error 28"  # as Rust says ENOSPC

_EXIT_CODES = {
    148: "its system call filter forbade one",
    149: "memory that it had mapped could not be read or written",
}
"""See FcExitCode in Firecracker's src/vmm/src/lib.rs."""


class FirecrackerVmm(VmmProcess):
    """Implements ports.engine.Vmm."""

    program = "Firecracker"
    stalled = False
    """A guest whose write finds no room on the host gets an I/O error, and goes on."""

    def __init__(self, process: Process, paths: VmPaths, token: bytes) -> None:
        super().__init__(process, paths)
        self.agent = AgentEndpoint(HybridVsockAddress(str(paths.agent_socket), machine.AGENT_PORT), token)
        self._api = Api(paths.control_socket)
        self._metrics: metrics.Metrics | None = None

    def signal(self, signal: int) -> None:
        """It handles none of those that end a process, and in a namespace of its own they end it no more."""
        super().signal(SIGKILL if signal in _ENDING else signal)

    async def connect(self, vm_id: str, seconds: float) -> "FirecrackerVmm":
        """It has `seconds` to answer first. Raises ToolFailed(VMM_FAILED), with its last words when it is gone."""
        try:
            async with asyncio.timeout(seconds):
                told = await self._first_answer()
        except TimeoutError:
            raise ToolFailed(
                Reason.VMM_FAILED, f"the VMM does not answer on {self._paths.control_socket}: it took too long"
            ) from None
        if told.get("id") != process_name(vm_id):
            raise ToolFailed(Reason.VMM_FAILED, f"the VMM at {self._paths.control_socket} is another VM's")
        self._metrics = metrics.opened(self._paths.metrics)
        return self

    async def version(self) -> str:
        """As `1.12.1`."""
        return number(str((await self._api.get("/version")).get("firecracker_version")))

    async def set(self, *settings: Setting) -> None:
        """Configure it. Raises ToolFailed(VMM_FAILED)."""
        for setting in settings:
            await self._api.put(setting.path, setting.body)

    async def load(self, setting: Setting, size: Setting) -> None:
        """Take a guest from its memory, whose machine has `size`. Raises ToolFailed(VMM_FAILED)."""
        await self._api.put(setting.path, setting.body, _LOAD_SECONDS)
        found = await self._api.get(size.path)
        if not size.body.items() <= found.items():
            raise ToolFailed(Reason.VMM_FAILED, f"the memory is of another machine: {found}, and not {size.body}")

    @property
    def failure(self) -> str:
        if not self._process.gone:
            return ""
        return console.panic(self._paths) or ("" if self._ended_by_guest else self.died().message)

    @property
    def restarts(self) -> bool:
        return self._process.gone and not self.failure and not console.powered_off(self._paths)

    async def boot(self) -> None:
        if (await self._api.get("/")).get("state") == _NOT_STARTED:
            await self._api.put(*machine.RUN)
        else:
            await self.resume()

    async def ready(self) -> None:
        await asyncio.sleep(_RETRY_SECONDS)
        if await self._process.wait(0):
            raise self.died()

    async def connections(self) -> int:
        return 0  # its guest is on a tap, beside it

    async def publish(self, port: PublishedPort) -> None:
        """Its guests are in networks that VMs share, and their ports are the host's there."""

    def published(self, ports: Collection[PublishedPort]) -> Mapping[PublishedPort, int]:
        return {}

    async def knocked(self) -> bool:
        return False

    async def pause(self) -> None:
        await self._api.patch("/vm", {"state": "Paused"})

    async def resume(self) -> None:
        await self._api.patch("/vm", {"state": "Resumed"})
        await settled(self._paths.agent_socket)

    async def limit_disk(self, rates: DiskRates) -> None:
        setting = machine.limit_disk(rates)
        await self._api.patch(setting.path, setting.body)

    async def save(self, directory: Path) -> None:
        with writing(directory, self._paths.written) as memory:
            try:
                await self._write(machine.save(Memory(self._paths.written)))
            except Refused as error:
                if _DISK_FULL in error.fault:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
                raise
            await finish(memory)

    def bound_logs(self) -> None:
        super().bound_logs()
        if self._metrics is not None:
            self._metrics.take()

    async def disk_traffic(self) -> DiskTraffic | None:
        if self._metrics is None:
            return None
        await self._api.put(*machine.TELL_METRICS)
        self._metrics.take()
        return self._metrics.disk

    async def wait_gone(self, timeout_seconds: float | None = None) -> bool:
        return await self._process.wait(timeout_seconds)

    async def end(self) -> None:
        """Kill it, and let go of it once it is gone."""
        self.signal(SIGKILL)
        try:
            await self._process.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        await self._api.close()
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        self._process.close()

    def died(self) -> ToolFailed:
        if self._ended_by_guest:
            return ToolFailed(Reason.VMM_FAILED, console.panic(self._paths) or "the guest has shut itself down")
        died = super().died()
        why = _EXIT_CODES.get(self._process.exit_code or 0)
        return ToolFailed(died.reason, f"{died.message} ({why})") if why else died

    @property
    def _ended_by_guest(self) -> bool:
        """Firecracker ends well when its guest resets. Of one that was adopted nobody hears how it ended, but for what
        the guest's kernel said last."""
        code = self._process.exit_code
        return code == 0 if code is not None else console.ending(self._paths) is not None

    async def _write(self, setting: Setting) -> None:
        """Firecracker can't be told to stop, and would make anew what is deleted meanwhile: who gives up waits, too."""
        writing = asyncio.create_task(self._api.put(setting.path, setting.body, _SAVE_SECONDS))
        given_up = None
        while not writing.done():
            try:
                await asyncio.wait({writing})
            except asyncio.CancelledError as cancelled:
                given_up = cancelled
        if given_up is not None:
            writing.exception()
            raise given_up
        writing.result()

    async def _first_answer(self) -> dict[str, object]:
        while True:
            try:
                return await self._api.get("/")
            except NoAnswer as error:
                if await self._process.wait(0):
                    raise self.died() from error
            await asyncio.sleep(_COMES_UP_SECONDS)

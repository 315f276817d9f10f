"""A live QEMU process."""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ingle.api_server.adapters.qemu import command, migration
from ingle.api_server.adapters.qemu.memory import Memory, writing
from ingle.api_server.adapters.qemu.qmp import Qmp
from ingle.api_server.adapters.qemu.usernet import UserNetwork
from ingle.api_server.adapters.vmm import console
from ingle.api_server.adapters.vmm.process import VmmProcess
from ingle.api_server.host.process import Process
from ingle.api_server.model.errors import Reason, ToolFailed
from ingle.api_server.model.guest import AgentEndpoint, Holder, SerialAddress, VsockAddress
from ingle.api_server.model.network import PublishedPort
from ingle.api_server.model.rates import DiskRates
from ingle.api_server.ports.engine import DiskTraffic, VmPaths

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.05
_LAST_WORDS_SECONDS = 1.0
_END_SECONDS = 0.2
_IO_ERROR = "io-error"  # RunState in QEMU's qapi/run-state.json: a device's werror=stop, or =enospc, the default


class QemuVmm(VmmProcess):
    """Implements ports.engine.Vmm. `installed` says what the binary that is there says of its version."""

    program = "QEMU"

    def __init__(
        self,
        process: Process,
        paths: VmPaths,
        ready: socket.socket | None,
        installed: Callable[[], Awaitable[str]],
    ) -> None:
        super().__init__(process, paths)
        self._installed = installed
        self._ready = ready
        self._retry_seconds = 0.0
        self._qmp: Qmp
        self._network: UserNetwork
        self._agent: AgentEndpoint
        self._shutdown_reason = ""
        self._stalled = False

    async def connect(self, vm_id: str, token: bytes, seconds: float) -> "QemuVmm":
        """Take up the control connection; QEMU has `seconds` to answer first.

        Raises ToolFailed(VMM_FAILED), with the end of QEMU's stderr when it is gone."""
        async with self._last_words():
            self._qmp = await Qmp.connect(self._paths.control_socket, self._on_event, seconds)
            # A QEMU that was adopted may have stopped its guest while nobody listened.
            self._stalled = (await self._qmp.execute("query-status"))["status"] == _IO_ERROR
            self._network = UserNetwork(self._process, self._qmp)
            await self._network.look()
        self._agent = AgentEndpoint(self._address(vm_id), token)
        return self

    async def load(self, memory: Memory) -> None:
        """Take the guest from there. Raises ToolFailed(VMM_FAILED)."""
        with memory.opened() as descriptor:
            async with self._last_words():
                await migration.load(self._qmp, descriptor, all_memory=not memory.shared)

    @property
    def agent(self) -> AgentEndpoint:
        return self._agent

    @property
    def failure(self) -> str:
        if not self._process.gone or self._shutdown_reason == "guest-shutdown":
            return ""
        if self._shutdown_reason == "guest-reset":
            return console.panic(self._paths)
        return self.died().message

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
            await asyncio.sleep(self._retry_seconds)
            self._retry_seconds = _RETRY_SECONDS
        else:
            # Calling earlier is worse than useless: QEMU takes the connection and then tries the guest at its leisure.
            await asyncio.get_running_loop().sock_recv(self._ready, 64)
            self._ready.close()
            self._ready = None
        if await self._process.wait(0):
            raise self.died()

    async def connections(self) -> int:
        return await self._network.connections()

    async def publish(self, port: PublishedPort) -> None:
        async with self._last_words():
            await self._network.publish(port)

    def published(self, ports: Collection[PublishedPort]) -> Mapping[PublishedPort, int]:
        return self._network.published(ports)

    async def knocked(self) -> bool:
        return await self._network.knocked()

    async def pause(self) -> None:
        await self._qmp.execute("stop")
        self._network.stand_still()

    async def resume(self) -> None:
        self._network.go_on()
        await self._qmp.execute("cont")

    async def limit_disk(self, rates: DiskRates) -> None:
        block = await self._qmp.execute("query-block")
        (device,) = (each["qdev"] for each in block if each.get("inserted", {}).get("node-name") == command.ROOT_NODE)
        await self._qmp.execute("block_set_io_throttle", **throttle(device, rates))

    async def disk_traffic(self) -> DiskTraffic:
        async with self._last_words():
            told = await self._qmp.execute("query-blockstats")
        (counted,) = (each["stats"] for each in told if each.get("node-name") == command.ROOT_NODE)
        names = ("rd_operations", "rd_bytes", "wr_operations", "wr_bytes")
        return DiskTraffic(*(counted[name] for name in names))

    async def save(self, directory: Path) -> None:
        await self._check_version()
        async with writing(directory) as descriptor, self._last_words():
            await migration.save(self._qmp, descriptor)

    async def wait_gone(self, timeout_seconds: float | None = None) -> bool:
        if not await self._process.wait(timeout_seconds):
            return False
        # What QEMU said last, that the guest powered off, may still be on its way through the loop.
        await self._qmp.ended(_LAST_WORDS_SECONDS)
        return True

    async def end(self) -> None:
        """Kill it, and let go of it once it is gone."""
        self.signal(signal.SIGKILL)
        try:
            await self._process.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        if self._ready is not None:
            self._ready.close()
            self._ready = None
        if hasattr(self, "_network"):
            self._network.go_on()
        if hasattr(self, "_qmp"):
            await self._qmp.close()
        self._process.close()

    async def _check_version(self) -> None:
        """Raise ToolFailed(VMM_FAILED) unless this process is what is installed: another version may load what it has
        written, and not know what it means."""
        async with self._last_words():
            told = await self._qmp.execute("query-version")
        number = ".".join(str(told["qemu"][part]) for part in ("major", "minor", "micro"))
        package = f" ({told['package']})" if told["package"] else ""
        installed = await self._installed()
        if installed != f"QEMU emulator version {number}{package}":
            raise ToolFailed(
                Reason.VMM_FAILED,
                f"this VM runs in QEMU {number}{package}, of which the memory would be; now there is {installed}",
                "ingle vm restart",
            )

    @asynccontextmanager
    async def _last_words(self) -> AsyncIterator[None]:
        """Where QEMU can't be asked because it is gone, why is in what it said last."""
        try:
            yield
        except ToolFailed as error:
            if await self._process.wait(_END_SECONDS):
                raise self.died() from error
            raise

    def _address(self, vm_id: str) -> SerialAddress | VsockAddress:
        """Where the agent is. There is a socket of this VMM's, or it has been given a vsock."""
        if self._paths.agent_socket.exists():
            return SerialAddress(str(self._paths.agent_socket))
        holder = Holder(self.pid, self.start_time)
        return VsockAddress(command.vsock_cid(vm_id), command.AGENT_PORT, holder)

    def _on_event(self, name: str, data: dict[str, Any]) -> None:
        if name == "SHUTDOWN":
            self._shutdown_reason = data.get("reason", "")
        elif name == "BLOCK_IO_ERROR" and data.get("action") == "stop":
            log.warning("a guest stands still: its disk could not take a write", extra={"pid": self.pid, **data})
            self._stalled = True
        elif name == "RESUME":
            self._stalled = False

    def died(self) -> ToolFailed:
        if self._shutdown_reason.startswith("guest-"):
            return ToolFailed(Reason.VMM_FAILED, console.panic(self._paths) or "the guest has shut itself down")
        return super().died()


def throttle(device: str, rates: DiskRates) -> dict[str, str | int]:
    """Arguments of block_set_io_throttle: of reads and writes together, where 0 is no limit."""
    apart = dict.fromkeys(("bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
    return {"id": device, "bps": rates.bytes_per_second, "iops": rates.iops, **apart}

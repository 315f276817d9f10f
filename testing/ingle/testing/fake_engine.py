"""An engine whose guests are ordinary processes: everything of a VM but the machine, in a fraction of a second."""

import asyncio
import os
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ingle.api_server.adapters.vmm import boot, console, launching
from ingle.api_server.adapters.vmm.found import process_name
from ingle.api_server.adapters.vmm.process import VmmProcess
from ingle.api_server.host import sockets
from ingle.api_server.host.files import new_file
from ingle.api_server.host.process import Process
from ingle.api_server.model.errors import HostProblem, Reason, ToolFailed
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
from ingle.api_server.model.network import PublishedPort
from ingle.api_server.model.rates import DiskRates
from ingle.api_server.model.vm import Acceleration, Kernel, LiveVmm, Vm
from ingle.api_server.ports.disk import BootConfig, DiskFormat
from ingle.api_server.ports.engine import EngineInfo, LaunchPlan, NetworkKind, Vmm, VmPaths
from ingle.api_server.ports.network import Link
from ingle.api_server.programs import agent_binary
from ingle.testing import fake_vmm

MEMORY_FILE = "memory"
"""In the directory of a saved one."""

_ANSWER_SECONDS = 30.0
_RETRY_SECONDS = 0.02


class FakeVmm(VmmProcess):
    """Implements ports.engine.Vmm."""

    program = "the fake VMM"
    stalled = False

    def __init__(self, process: Process, paths: VmPaths, token: bytes) -> None:
        super().__init__(process, paths)
        self.agent = AgentEndpoint(UnixAddress(str(paths.state / fake_vmm.AGENT_SOCKET)), token)
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, engine: str) -> "FakeVmm":
        """Raises ToolFailed(VMM_FAILED) when nobody answers, or a VMM of another engine does."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                with sockets.short_path(self._paths.control_socket) as name:
                    self._reader, self._writer = await asyncio.open_unix_connection(name)
                greeting = (await self._reader.readline()).decode().strip()
        except (OSError, TimeoutError) as error:
            raise self.died() if await self._process.wait(0.2) else self._failed(repr(error)) from error
        if greeting != engine:
            raise self._failed(f"it is of engine {greeting}, and not of {engine}")
        return self

    @property
    def failure(self) -> str:
        if not self._process.gone:
            return ""
        ending = console.ending(self._paths)
        return self.died().message if ending is None else ending.failure

    @property
    def restarts(self) -> bool:
        ending = console.ending(self._paths)
        return ending is not None and ending.restarts

    async def boot(self) -> None:
        await self._say("boot")

    async def ready(self) -> None:
        await asyncio.sleep(_RETRY_SECONDS)
        if self._process.gone:
            raise self.died()

    async def connections(self) -> int:
        return 0

    async def publish(self, port: PublishedPort) -> None:
        raise self._failed(f"it publishes no port, and not {port}")

    def published(self, ports: Collection[PublishedPort]) -> Mapping[PublishedPort, int]:
        return {}

    async def knocked(self) -> bool:
        return False

    async def pause(self) -> None:
        await self._say("pause")

    async def resume(self) -> None:
        await self._say("resume")

    async def limit_disk(self, rates: DiskRates) -> None:
        """Its guest has the disk of whoever runs it."""

    async def disk_traffic(self) -> None:
        """Nobody counts it."""

    async def save(self, directory: Path) -> None:
        memory = directory / MEMORY_FILE
        with new_file(memory, 0o600):
            answer = await self._answer(f"save {memory}")
            if answer.isdecimal():
                raise OSError(int(answer), os.strerror(int(answer)))
            if answer != "ok":
                raise self.died()

    async def wait_gone(self, timeout_seconds: float | None = None) -> bool:
        return await self._process.wait(timeout_seconds)

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._process.close()

    async def _say(self, word: str) -> None:
        if await self._answer(word) != "ok":
            raise self.died()

    async def _answer(self, word: str) -> str:
        assert self._writer is not None
        try:
            self._writer.write(word.encode() + b"\n")
            async with asyncio.timeout(_ANSWER_SECONDS):
                return (await self._reader.readline()).decode().strip()
        except (OSError, TimeoutError) as error:
            raise self._failed(repr(error)) from error

    def _failed(self, why: str) -> ToolFailed:
        return ToolFailed(Reason.VMM_FAILED, f"{self.program} with pid {self.pid}: {why}")


class FakeEngine:
    """Implements ports.engine.Engine. Only a VMM of the same name is spoken to."""

    def __init__(self, name: str) -> None:
        self.info = EngineInfo(
            name=name,
            accelerations=frozenset({Acceleration.TCG}),
            disk_formats=frozenset({DiskFormat.RAW}),
            networks=frozenset({NetworkKind.USER}),
            saves=True,
        )

    async def problem(self) -> HostProblem | None:
        return None

    async def acceleration_problem(self, acceleration: Acceleration, kernel: Kernel) -> str:
        return ""

    def check(self, paths: VmPaths, ports: Sequence[PublishedPort]) -> None:
        if ports:
            raise HostProblem(Reason.PORT_REFUSED, f"engine {self.info.name} publishes no ports")

    def boot_config(self, vm: Vm, token: bytes, link: Link | None) -> BootConfig:
        return boot.boot_config(vm, token, (), root_device="/dev/vda", modules_device="", ready_device="/dev/ttyS1")

    async def launch(self, plan: LaunchPlan) -> Vmm:
        _write_private(plan.paths.state / fake_vmm.TOKEN_FILE, plan.token)
        variables = "".join(f"{name}={value}\0" for name, value in plan.vm.settings.environment.items())
        _write_private(plan.paths.state / fake_vmm.ENV_FILE, variables.encode(errors="surrogateescape"))
        with launching.listening(plan.paths.control_socket) as control:
            # -P: what lies beside it is no module of its own.
            program = (sys.executable, "-P", str(Path(fake_vmm.__file__)))
            name = process_name(plan.vm.id)
            memory = () if plan.memory is None else (str(plan.memory / MEMORY_FILE),)
            argv = (*program, self.info.name, str(agent_binary()), str(control.fileno()), name)
            child = await launching.spawn((*argv, *memory), plan.vm, plan.paths, (control.fileno(),))
        vmm = FakeVmm(child, plan.paths, plan.token)
        try:
            return await vmm.connect(self.info.name)
        except BaseException:
            child.signal(signal.SIGKILL)
            await child.wait()
            await vmm.close()
            raise

    async def adopt(self, vm: Vm, paths: VmPaths, live: LiveVmm, token: bytes) -> Vmm | None:
        found = Process.adopt(live.pid, live.start_time)
        if found is None:
            return None
        vmm = FakeVmm(found, paths, token)
        try:
            return await vmm.connect(self.info.name)
        except BaseException:
            await vmm.close()
            raise

    async def share(self, vm: Vm, directory: Path) -> None:
        if not (directory / MEMORY_FILE).is_file():
            raise ToolFailed(Reason.VMM_FAILED, f"{directory} holds no memory of engine {self.info.name}")

    async def memory_key(self, vm: Vm, kernel: Kernel, acceleration: Acceleration) -> str:
        machine = (vm.settings.vcpus, vm.settings.memory_bytes, kernel.id, acceleration.value)
        return " ".join(map(str, (self.info.name, await self.version(), *machine)))

    async def version(self) -> str:
        return "1.0"


def _write_private(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)

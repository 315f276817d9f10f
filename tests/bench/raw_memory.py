"""The floor of a memory: the same QEMU, written and read by the fewest commands, with nothing of ingle around it."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ingle.api_server.adapters.qemu import command
from ingle.api_server.adapters.vmm.launching import listening
from ingle.api_server.host.tsc import tsc_khz
from ingle.api_server.ports.engine import LaunchPlan

_QEMU = "qemu-system-x86_64"
_LOOK_SECONDS = 0.001
_UNBOUNDED = 2**50


class RawQemu:
    """A process with a guest that stands still in the middle of something. `ram`: a file to map."""

    def __init__(self, plan: LaunchPlan, ram: Path | None = None) -> None:
        paths = plan.paths
        with ExitStack() as stack:
            control = stack.enter_context(listening(paths.control_socket))
            agent = stack.enter_context(listening(paths.agent_socket))
            argv = command.launch(
                _QEMU,
                plan,
                control_fd=control.fileno(),
                ready_fd=None,
                agent_fd=agent.fileno(),
                tsc_khz=tsc_khz(),
                ram=ram,
            )
            self._start(argv, paths.state, (control, agent), paths.control_socket)
        if plan.memory is not None:
            self._load(plan.memory / ("stream" if ram is None else "state"), shared=ram is not None)

    def stop(self) -> None:
        """Stand still."""
        self._ask("stop")

    def save(self, path: Path) -> None:
        """All of it, so that it stays, of a guest that stands still."""
        with path.open("xb") as file:
            self._migrate("migrate", file.fileno())
            os.fsync(file.fileno())

    def go_on(self) -> None:
        """Until it is asked to stop."""
        self._ask("cont")

    def close(self) -> None:
        """End it."""
        self._file.close()
        self._control.close()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _start(self, argv: Sequence[str], directory: Path, passed: Sequence[socket.socket], control: Path) -> None:
        self.process = subprocess.Popen(argv, cwd=directory, pass_fds=[end.fileno() for end in passed])
        self._control = socket.socket(socket.AF_UNIX)
        self._control.connect(str(control))
        self._file = self._control.makefile("rb")
        self._file.readline()
        self._ask("qmp_capabilities")
        self._ask("migrate-set-parameters", **{"max-bandwidth": _UNBOUNDED})

    def _load(self, path: Path, *, shared: bool) -> None:
        capability = {"capability": "x-ignore-shared", "state": shared}
        self._ask("migrate-set-capabilities", capabilities=[capability])
        with path.open("rb") as file:
            self._migrate("migrate-incoming", file.fileno())

    def _migrate(self, how: str, descriptor: int) -> None:
        line = json.dumps({"execute": "getfd", "arguments": {"fdname": "raw"}}).encode() + b"\n"
        socket.send_fds(self._control, [line], [descriptor])
        self._answer()
        self._ask(how, uri="fd:raw")
        while (status := self._ask("query-migrate").get("status")) != "completed":
            assert status != "failed"
            time.sleep(_LOOK_SECONDS)

    def _ask(self, what: str, **arguments: object) -> Any:
        self._control.sendall(json.dumps({"execute": what, "arguments": arguments}).encode() + b"\n")
        return self._answer()

    def _answer(self) -> Any:
        while True:
            told = json.loads(self._file.readline())
            if "event" not in told:
                return told["return"]

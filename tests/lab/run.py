"""A run of tests in the lab, seen from the host: one boot, one pytest in there, its reports as they come."""

import json
import queue
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ingle.api_server.model.errors import GuestError
from lab import machine
from lab.disk import Say
from lab.inside_plugin import NODE_IDS
from lab.machine import LabDiedError, LabError, Machine

_INSIDE = "/opt/lab/repository"
_NODE_IDS = "/run/lab/node-ids"
# Where services with a /tmp of their own can write as well. What ingle.service leaves there, its RemoveIPC= removes.
_COVERAGE = "/dev/shm/lab-coverage"

# A test inside that hangs shows its stacks after faulthandler_timeout; that has to get into the log.
_SILENCE_SECONDS = 420.0
_TAIL_LINES = 30

# From a connection that ends to QEMU's end, when the lab's kernel panics.
_DYING_SECONDS = 10.0

# $1 to the end: pytest's arguments. Its reports are what we read; what it says itself goes to the log.
_PYTEST = f"""
cd {_INSIDE}
exec /opt/lab/venv/bin/python -m pytest -p lab.inside_plugin -p no:cacheprovider "$@" 3>&1 >&2
"""
_INSTALL = f"/opt/ingle/bin/pip install --quiet --no-index --no-deps {_INSIDE}/dist/*.whl"
_MEASURED = {"COVERAGE_PROCESS_START": f"{_INSIDE}/pyproject.toml", "COVERAGE_FILE": f"{_COVERAGE}/coverage"}
_MEASURE = f"""
mkdir -m 1777 {_COVERAGE}
tests=$(echo /opt/lab/venv/lib/python3*/site-packages)
for hook in "$tests"/*coverage*.pth; do cp "$hook" "$(cat "$tests/ingle.pth")"; done
echo "$tests" >"$(cat "$tests/ingle.pth")/a0_tests.pth"
systemctl set-environment {" ".join(f"{name}={value}" for name, value in _MEASURED.items())}
"""


class Run:
    """Tests in the lab. `logs`: a directory for what the lab says; `coverage`: one for data files, if wanted."""

    def __init__(self, logs: Path, coverage: Path | None, say: Say) -> None:
        self._logs = logs
        self._coverage = coverage
        self._say = say
        self._stack = ExitStack()
        self._messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._line = b""
        self._machine: Machine | None = None

    def start(self, image: Path, archive: bytes, node_ids: Sequence[str], options: Sequence[str]) -> None:
        """Boot from the disk in the directory `image`, install what is in `archive`, and have pytest begin. Raises
        LabError."""
        self._logs.mkdir(parents=True, exist_ok=True)
        for log in self._logs.glob("*.log"):
            log.unlink()
        started = time.monotonic()
        lab = self._machine = self._stack.enter_context(machine.running(image, self._logs))
        self._say(f"up after {time.monotonic() - started:.0f} s; installing ingle")
        try:
            self._begin(lab, archive, node_ids, options)
        except GuestError:
            self._check_alive(_DYING_SECONDS)
            raise
        self._say(f"ready after {time.monotonic() - started:.0f} s")

    def _begin(self, lab: Machine, archive: bytes, node_ids: Sequence[str], options: Sequence[str]) -> None:
        lab.guest.run("mkdir", "-p", _INSIDE)
        lab.guest.copy_in(archive, _INSIDE)
        lab.guest.run("sh", "-ec", _INSTALL)
        lab.guest.run("sh", "-ec", f"cat >{_NODE_IDS} <<'END'\n{json.dumps(node_ids)}\nEND\n")
        env = {NODE_IDS: _NODE_IDS, "PYTHONDONTWRITEBYTECODE": "1"}
        if self._coverage is not None:
            lab.guest.run("sh", "-ec", _MEASURE)
            env |= _MEASURED
        files = dict.fromkeys(node_id.partition("::")[0] for node_id in node_ids)
        command = ("sh", "-c", _PYTEST, "sh", *options, *files)
        pytest = lab.guest.start(*command, env=env, stdout=self._take, stderr=self._log)
        pytest.add_done_callback(self._take_end)

    def reports(self, node_id: str) -> Iterator[dict[str, Any]]:
        """What pytest reports about the next test, `node_id`, until it is finished. Raises LabError when nothing more
        will come."""
        broken = ""
        while True:
            message = self._next()
            if "report" in message:
                yield message["report"]
            elif "broken" in message:
                broken = message["broken"]
            elif "ended" in message:
                self._check_alive(_DYING_SECONDS if message["ended"].startswith("lost") else 0.0)
                raise LabError(broken or f"pytest in the lab ended: {message['ended']}\n{self._tail()}")
            elif message["finished"] == node_id:
                return

    def close(self) -> None:
        """Take the logs and the coverage of a lab that lives, and end it; nothing happens when it has ended."""
        lab, self._machine = self._machine, None
        with self._stack:
            if lab is None:
                return
            try:
                journal = lab.guest.run("journalctl", "--boot", "--no-pager", "--output=short-monotonic")
                (self._logs / "journal.log").write_text(journal)
                if self._coverage is not None:
                    lab.guest.run("systemctl", "stop", "ingle*")  # which writes what was measured
                    lab.guest.copy_out(_COVERAGE, self._coverage)
            except (GuestError, RuntimeError) as error:
                self._say(f"its journal and coverage are lost: {error}")

    def _next(self) -> dict[str, Any]:
        assert self._machine is not None
        deadline = time.monotonic() + _SILENCE_SECONDS
        while True:
            try:
                return self._messages.get(timeout=1.0)
            except queue.Empty:
                pass
            self._check_alive(0.0)
            if time.monotonic() > deadline:
                said = self._tail()
                self._machine = None
                raise LabError(f"the lab said nothing for {_SILENCE_SECONDS:.0f} s\n{said}")

    def _check_alive(self, patience: float) -> None:
        """Raise LabDiedError if the lab is dead, or within `patience` seconds."""
        lab = self._machine
        if lab is not None and not lab.alive(patience):
            self._machine = None  # nobody to ask
            raise LabDiedError(f"the lab died\n{lab.console_tail()}")

    def _take_end(self, pytest: "Future[int]") -> None:
        lost = pytest.exception()
        self._messages.put({"ended": f"exit code {pytest.result()}" if lost is None else f"lost: {lost}"})

    def _take(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._messages.put(json.loads(line))

    def _log(self, data: bytes) -> None:
        with open(self._logs / "pytest.log", "ab") as log:
            log.write(data)

    def _tail(self) -> str:
        assert self._machine is not None
        said = (self._logs / "pytest.log").read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(["pytest in the lab said last:", *said, self._machine.console_tail()])

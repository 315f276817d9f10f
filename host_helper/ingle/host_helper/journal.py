"""What the helper has made, on disk before it is made.

One line a transition: what is added and what is removed, durable before the kernel is asked. A helper that was killed
at any instant finds its last line, complete or torn, and rolls forward to the state it stands for. It lives in /run:
what it lists does not outlive the host's boot either.

Lines are JSON: {"add": [["tap", 258, "0123456789ab"], …], "remove": […]}.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ingle.host_helper.state import Device, Limit, Nat, Network, Protocol, Published, Resource, State, Tap

_MOST_LINES = 5000
"""After this many the file is written anew, with one line that says it all."""


class BadJournal(Exception):
    """The file is no journal of this helper's; the message says what to do."""


class Journal:
    """Holds the state; the file is always at least as new as what `state` says."""

    def __init__(self, path: Path) -> None:
        """Read it, or begin one. A torn last line was never acted upon. Raises OSError, BadJournal."""
        self._path = path
        try:
            self.state = _replay(path)
        except (LookupError, TypeError, ValueError) as error:
            raise BadJournal(
                f"{path}: {error}; move it away: what it lists is found by its tags, and removed"
            ) from None
        self._write_anew()

    def change(self, new: State) -> None:
        """Make `new` the state. When this returns it is durable. Raises OSError, and then nothing has changed."""
        added, removed = new.beyond(self.state), list(self.state.minus(new))
        if not added and not removed:
            return
        line = _line(added, removed)
        if os.write(self._file, line) != len(line):
            os.ftruncate(self._file, self._size)
            raise OSError(f"{self._path}: no room for a line")
        os.fsync(self._file)
        self._size += len(line)
        self._lines += 1
        self.state = new
        if self._lines > _MOST_LINES:
            os.close(self._file)
            self._write_anew()

    def close(self) -> None:
        """The file stays."""
        os.close(self._file)

    def _write_anew(self) -> None:
        temporary = self._path.with_name(f"{self._path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(temporary, flags, 0o600)
        line = _line(self.state, ())
        with open(os.dup(self._file), "wb") as file:
            file.write(line)
        os.fsync(self._file)
        temporary.rename(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
        self._size = len(line)
        self._lines = 1


def _line(added: Iterable[Resource], removed: Iterable[Resource]) -> bytes:
    record = {"add": [_as_json(each) for each in added], "remove": [_as_json(each) for each in removed]}
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _replay(path: Path) -> State:
    state = State()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return state
    for line in data.split(b"\n")[:-1]:  # what follows the last newline is torn, or empty
        record = json.loads(line)
        state = state.minus(map(_of_json, record["remove"])).plus(*map(_of_json, record["add"]))
    return state


def _as_json(resource: Resource) -> list[str | int]:
    match resource:
        case Network(number, dns_port):
            return ["network", number, dns_port]
        case Tap(slot, vm):
            return ["tap", slot, vm]
        case Nat(slot):
            return ["nat", slot]
        case Limit(slot, bytes_per_second):
            return ["limit", slot, bytes_per_second]
        case Published(protocol, host_port, slot, vm_port, address):
            return ["port", protocol.value, host_port, slot, vm_port, address]
        case Device(vm, image, size):
            return ["device", vm, image, size]


def _of_json(value: list[Any]) -> Resource:
    match value:
        case ["network", int(number), *dns_port]:  # which earlier versions did not have
            return Network(number, *dns_port)
        case ["tap", int(slot), str(vm)]:
            return Tap(slot, vm)
        case ["nat", int(slot)]:
            return Nat(slot)
        case ["limit", int(slot), int(bytes_per_second)]:
            return Limit(slot, bytes_per_second)
        case ["port", str(protocol), int(host_port), int(slot), int(vm_port), *address]:  # neither this
            return Published(Protocol(protocol), host_port, slot, vm_port, *address)
        case ["device", str(vm), str(image), int(size)]:
            return Device(vm, image, size)
    raise ValueError(f"{value} is nothing that a journal holds")

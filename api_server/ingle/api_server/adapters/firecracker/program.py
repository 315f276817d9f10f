"""The program, and which release it is."""

import os
import re

from ingle.api_server.host.tool import Tools, require
from ingle.api_server.model.errors import HostProblem, Reason, ToolFailed

_LEAST_VERSION = (1, 12)
"""The first that takes another tap for a guest it goes on with."""

_BROKEN_VERSIONS = frozenset({(1, 16, 0), (1, 16, 1)})
"""A guest of theirs that was paused has a vsock no more when it goes on: Firecracker's issue 6074."""

_REMEDY = "ingle engine install firecracker --help: a release from 1.12 on but not 1.16; or use --engine qemu"


class Program:
    """`name`: to be looked for, or its path."""

    def __init__(self, name: str, tools: Tools) -> None:
        self._name = name
        self._tools = tools
        self._version: tuple[object, str] | None = None

    def require(self) -> str:
        """Its path. Raises HostProblem(DEPENDENCY_MISSING)."""
        try:
            return require(self._name)
        except HostProblem:
            missing = f"Firecracker is not installed: there is no program {self._name!r}"
            raise HostProblem(Reason.DEPENDENCY_MISSING, missing, _REMEDY) from None

    async def version(self) -> str:
        """As `1.12.1`. It is asked once for each program that has been there. Raises HostProblem(DEPENDENCY_MISSING),
        ToolFailed."""
        path = self.require()
        status = os.stat(path)
        which = (path, status.st_ino, status.st_mtime_ns)
        if self._version is None or self._version[0] != which:
            self._version = which, number((await self._tools.run([path, "--version"])).decode(errors="replace"))
        return self._version[1]

    async def check(self) -> None:
        """Raise HostProblem(DEPENDENCY_MISSING) where it is not there, is another program, or lacks what we need."""
        try:
            check_version(await self.version())
        except ToolFailed as error:
            untold = f"{self._name} does not tell its version: {error.message}"
            raise HostProblem(Reason.DEPENDENCY_MISSING, untold, _REMEDY) from error


def number(said: str) -> str:
    """The version in what it says of itself."""
    found = re.search(r"\bv?(\d+\.\d+[\w.+-]*)", said)
    return found[1] if found else said[:100].strip()


def check_version(version: str) -> None:
    """Raise HostProblem(DEPENDENCY_MISSING) for one that lacks what we need."""
    numbers = tuple(map(int, re.findall(r"\d+", version)[:3]))
    if numbers[:2] < _LEAST_VERSION:
        why = f"is too old: {'.'.join(map(str, _LEAST_VERSION))} is the first that does"
    elif numbers in _BROKEN_VERSIONS:
        why = "loses the agent of a guest that is paused: 1.15 does not"
    else:
        return
    raise HostProblem(Reason.DEPENDENCY_MISSING, f"Firecracker {version} {why}", _REMEDY)

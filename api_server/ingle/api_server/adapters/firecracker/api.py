"""Firecracker's API: JSON over HTTP on a unix socket, see its src/firecracker/swagger/firecracker.yaml.

A request is answered with 204, with 200 and JSON, or with 4xx and a `fault_message`. All go over one connection, one
after the other: Firecracker has ten at most, and turns others away.
"""

import json
import logging
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.api_server.model.errors import Reason, ToolFailed
from ingle.api_server.model.exhaustion import exhaustion

if TYPE_CHECKING:
    import httpx

_ANSWER_SECONDS = 30.0
_LARGEST_ANSWER = 1 << 20
_LONGEST_FAULT = 2000

Body = Mapping[str, Any]


class NoAnswer(ToolFailed):
    """Nobody listens on the socket, or not any more."""


class Refused(ToolFailed):
    """Firecracker says why it does not do it: `fault`."""

    def __init__(self, what: str, fault: str) -> None:
        super().__init__(Reason.VMM_FAILED, f"Firecracker refuses {what}: {fault}")
        self.fault = fault


class Api:
    """That of one process, whose socket need not be there yet."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._directory = -1
        self._client: httpx.AsyncClient | None = None

    async def get(self, path: str) -> dict[str, Any]:
        """What the API says of it. Raises ToolFailed(VMM_FAILED), as all of them."""
        told = _object(await self._ask("GET", path, None, _ANSWER_SECONDS))
        if told is None:
            raise ToolFailed(Reason.VMM_FAILED, f"Firecracker answers GET {path} with no object")
        return told

    async def put(self, path: str, body: Body, seconds: float = _ANSWER_SECONDS) -> None:
        """Set it, or do it."""
        await self._ask("PUT", path, body, seconds)

    async def patch(self, path: str, body: Body) -> None:
        """Change it."""
        await self._ask("PATCH", path, body, _ANSWER_SECONDS)

    async def close(self) -> None:
        """Hang up. Firecracker goes on."""
        if self._client is not None:
            await self._client.aclose()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    async def _ask(self, method: str, path: str, body: Body | None, seconds: float) -> bytes:
        import httpx  # noqa: PLC0415 - takes 5 MiB and 40 ms, and most servers have no Firecracker

        what = f"{method} {path}"
        timeout = httpx.Timeout(seconds, pool=None)  # who waits for their turn waits for others' time
        try:
            client = self._open() if self._client is None else self._client
            async with client.stream(method, path, json=body, timeout=timeout) as response:
                answer = await _whole(response)
        except (httpx.TransportError, OSError) as error:
            if isinstance(cause := _cause(error), OSError) and (problem := exhaustion(cause)):
                raise problem from error
            late = isinstance(error, httpx.TimeoutException)
            why = f"no answer in {seconds:.0f} s" if late else str(cause) or str(error)
            raise NoAnswer(Reason.VMM_FAILED, f"Firecracker does not answer {what}: {why}") from error
        if response.is_success:
            return answer
        raise Refused(what, _fault(answer) or f"HTTP status {response.status_code}")

    def _open(self) -> "httpx.AsyncClient":
        """Raises OSError."""
        import httpx  # noqa: PLC0415 - loaded by now

        logging.getLogger("httpx").setLevel(logging.WARNING)  # each request would be a line
        # A path of any length, which stays that of the directory.
        self._directory = os.open(self._socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        transport = httpx.AsyncHTTPTransport(
            uds=f"/proc/self/fd/{self._directory}/{self._socket.name}",
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None),
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # which nobody uses: no certificates are read for it
        )
        self._client = httpx.AsyncClient(transport=transport, base_url="http://localhost", trust_env=False)
        return self._client


async def _whole(response: "httpx.Response") -> bytes:
    """The body, unless it is larger than any of Firecracker's: a guest may have taken it over."""
    answer = b""
    async for piece in response.aiter_raw():
        answer += piece
        if len(answer) > _LARGEST_ANSWER:
            raise ToolFailed(Reason.VMM_FAILED, "Firecracker's answer has no end")
    return answer


def _object(answer: bytes) -> dict[str, Any] | None:
    """What it says, if it is one."""
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _fault(answer: bytes) -> str:
    fault = (_object(answer) or {}).get("fault_message", answer.decode(errors="replace"))
    return str(fault)[:_LONGEST_FAULT].strip()


def _cause(error: BaseException) -> BaseException:
    """What was first: httpx wraps the errors of what it is made of."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error

"""A command's deadline on the host's side, for guests that don't keep it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ingle.api_server.model.errors import GuestError, Reason


class Deadline:
    """When to give a command's guest up, counted from now on: when it says nothing for `late_seconds` in all after the
    timeout. What has arrived costs nothing: a caller that takes its output slowly gets all of it."""

    def __init__(self, timeout_seconds: float | None, late_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._late = self._left = late_seconds
        self._at = None if timeout_seconds is None else asyncio.get_running_loop().time() + timeout_seconds

    @asynccontextmanager
    async def wait(self) -> AsyncIterator[None]:
        """Wait for the guest within the context. Raises GuestError(COMMAND_TIMED_OUT)."""
        if self._at is None:
            yield
            return
        loop = asyncio.get_running_loop()
        late_from = max(loop.time(), self._at)
        try:
            async with asyncio.timeout_at(late_from + self._left):
                yield
        except TimeoutError as error:
            raise GuestError(
                Reason.COMMAND_TIMED_OUT,
                f"the command's timeout of {self._timeout:g} s is over, and the guest said nothing for "
                f"{self._late:g} s more: it kills the command as soon as it goes on",
            ) from error
        finally:
            self._left -= max(0.0, loop.time() - late_from)

"""The way into a guest."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ingle.api_server.model.guest import AgentEndpoint, AgentInfo, ExecEvent, ExecSpec, GuestStats
from ingle.api_server.ports.guest_files import GuestFiles


class ExecSession(Protocol):
    """One command under way. Leaving its context kills the command's process group if it still runs."""

    def events(self) -> AsyncIterator[ExecEvent]:
        """Started, then output as it comes, then Exited, and the end. A lost connection raises GuestError: a stream
        without Exited is never taken for a success. Not reading slows the command."""

    async def write_stdin(self, data: bytes) -> None:
        """Hand over input of any length; returns when the connection can take more. After the command closed its
        stdin the data goes nowhere, silently, as in a shell pipe whose reader ignores it."""

    async def close_stdin(self) -> None:
        """The command sees the end of its input."""

    async def send_signal(self, signal: int) -> None:
        """Signal the command's process group (1 to 64)."""


class GuestChannel(Protocol):
    """One agent. Every call is one connection, so calls never wait for each other.

    All raise GuestError: GUEST_UNREACHABLE when nobody answers in time, GUEST_PROTOCOL when the answer makes no sense.
    Cancelling a call closes its connection."""

    @property
    def files(self) -> GuestFiles:
        """The guest's files."""

    async def ping(self, timeout_seconds: float = 5.0) -> AgentInfo:
        """A round trip."""

    def exec(self, spec: ExecSpec) -> AbstractAsyncContextManager[ExecSession]:
        """Start a command. GuestError COMMAND_NOT_FOUND, COMMAND_NOT_EXECUTABLE, GUEST_USER_NOT_FOUND or
        GUEST_DIRECTORY_NOT_FOUND comes out of entering the context."""

    async def stats(self, timeout_seconds: float = 5.0) -> GuestStats:
        """Load, memory and disk."""

    async def sync(self, timeout_seconds: float = 30.0) -> None:
        """Flush the guest's file systems."""

    async def shutdown(self, timeout_seconds: float = 10.0) -> None:
        """Kill everything, unmount and power off; returns when the agent has agreed to."""


class GuestDialler(Protocol):
    """Makes channels. No I/O until one is used."""

    def channel(self, endpoint: AgentEndpoint) -> GuestChannel:
        """The agent at `endpoint`."""

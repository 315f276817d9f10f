"""The way into a guest."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ingle.api_server.model.guest import (
    AgentEndpoint,
    AgentInfo,
    AttachSpec,
    Configured,
    ExecEvent,
    ExecSpec,
    GuestActivity,
    GuestConfiguration,
    GuestSession,
    GuestStats,
    SessionEvent,
    SessionProgram,
    TerminalSize,
)
from ingle.api_server.model.guest_network import ForwardEvent, ForwardSpec, ListeningPorts
from ingle.api_server.ports.guest_files import GuestFiles


class ExecSession(Protocol):
    """One command under way. Leaving its context kills the command's process group if it still runs and is not
    detached."""

    def events(self) -> AsyncIterator[ExecEvent]:
        """Started, then output as it comes, then Exited, and the end. A lost connection raises GuestError: a stream
        without Exited is never taken for a success. Not reading slows the command. Of a detached command there is
        Started alone. COMMAND_TIMED_OUT when the guest itself doesn't end the command in time."""

    async def write_stdin(self, data: bytes) -> None:
        """Hand over input of any length; returns when the connection can take more. After the command closed its
        stdin the data goes nowhere, silently, as in a shell pipe whose reader ignores it."""

    async def close_stdin(self) -> None:
        """The command sees the end of its input."""

    async def send_signal(self, signal: int) -> None:
        """Signal the command's process group (1 to 64)."""

    def leave(self) -> None:
        """Leave now, as by leaving the context; who waits for an event gets a GuestError."""


class Attachment(Protocol):
    """A viewer of a session. Leaving its context detaches: the session lives on, unless it ends with its viewer."""

    def events(self) -> AsyncIterator[SessionEvent]:
        """Attached, Scrollback if anything was said before, then Output, and Exited or Detached as the last. A lost
        connection raises GuestError. Who reads nothing for a second misses output, and is given Scrollback anew."""

    async def write_input(self, data: bytes) -> None:
        """Type; returns when the connection can take more."""

    async def resize(self, size: TerminalSize) -> None:
        """Change the size of the terminal."""

    def leave(self) -> None:
        """Detach now; who waits for an event gets a GuestError."""


class Forwarding(Protocol):
    """A connection to a server in the guest. Leaving its context before both directions have ended breaks it, which the
    server sees as a reset."""

    def events(self) -> AsyncIterator[ForwardEvent]:
        """Connected, what the server sends, PeerEnded; ends when both directions have. GuestError CONNECTION_RESET when
        the server breaks the connection. Not reading slows the server."""

    async def write(self, data: bytes) -> None:
        """Hand over data of any length; returns when the connection can take more, which a server that does not read
        puts off."""

    async def close_writing(self) -> None:
        """The server sees the end of what we send; it may go on sending."""

    def leave(self) -> None:
        """Break the connection now; who waits for an event gets a GuestError."""


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
        """Start a command. GuestError COMMAND_NOT_FOUND, COMMAND_NOT_EXECUTABLE, GUEST_USER_NOT_FOUND,
        GUEST_GROUP_NOT_FOUND, GUEST_DIRECTORY_NOT_FOUND, RESOURCE_LIMIT_REFUSED or COMMAND_TIMED_OUT
        comes out of entering the context."""

    async def create_session(self, session_id: str, program: SessionProgram) -> GuestSession:
        """Start a command on a terminal that lives on without viewers; an empty id is made up. Raises GuestError
        NAME_TAKEN, and what `exec` raises."""

    def attach_session(self, spec: AttachSpec) -> AbstractAsyncContextManager[Attachment]:
        """Become a session's one viewer. GuestError SESSION_NOT_FOUND, or SESSION_ATTACHED when it has one that is not
        to be replaced, comes out of entering the context."""

    async def list_sessions(self, timeout_seconds: float = 5.0) -> tuple[GuestSession, ...]:
        """All of them, oldest first."""

    async def resize_session(self, session_id: str, size: TerminalSize) -> None:
        """Change the size of a terminal. GuestError SESSION_NOT_FOUND."""

    async def kill_session(self, session_id: str, timeout_seconds: float = 10.0) -> None:
        """SIGHUP for all of a session, SIGKILL a second later; returns when it is gone. GuestError
        SESSION_NOT_FOUND."""

    async def configure(self, configuration: GuestConfiguration, timeout_seconds: float = 10.0) -> Configured:
        """Tell the guest about itself. All of it is checked in the guest before anything is changed: INVALID_ARGUMENT,
        GUEST_INTERFACE_NOT_FOUND, GUEST_USER_NOT_FOUND; SSH keys may find GUEST_DIRECTORY_NOT_FOUND or a file's reason
        later. Doing it again is fine."""

    async def stats(self, timeout_seconds: float = 5.0) -> GuestStats:
        """Load, processors, memory, disk and network."""

    async def activity(self, timeout_seconds: float = 5.0) -> GuestActivity:
        """What clients do in the guest, and how long ago anything passed. Whoever is stuck there holds nothing up."""

    def forward(self, spec: ForwardSpec) -> AbstractAsyncContextManager[Forwarding]:
        """Connect to a server in the guest. GuestError CONNECTION_REFUSED, CONNECTION_TIMED_OUT, HOST_UNREACHABLE,
        SOCKET_NOT_FOUND or CONNECTION_NOT_PERMITTED comes out of entering the context."""

    async def list_ports(self, timeout_seconds: float = 10.0) -> ListeningPorts:
        """Who listens in the guest."""

    async def sync(self, timeout_seconds: float = 30.0) -> None:
        """Flush the guest's file systems."""

    async def shutdown(self, timeout_seconds: float = 10.0) -> None:
        """Kill everything, unmount and power off; returns when the agent has agreed to."""


class GuestDialler(Protocol):
    """Makes channels. No I/O until one is used."""

    def channel(self, endpoint: AgentEndpoint) -> GuestChannel:
        """The agent at `endpoint`."""

"""The way into a guest."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from ingle.api_server.model.guest import (
    AgentEndpoint,
    AgentInfo,
    AttachSpec,
    ExecEvent,
    ExecSpec,
    GuestActivity,
    GuestIdentity,
    GuestSession,
    GuestStats,
    HookResult,
    IdentityTaken,
    Said,
    SessionEvent,
    SessionProgram,
    TerminalSize,
)
from ingle.api_server.model.guest_network import ForwardEvent, ForwardSpec, ListeningPorts
from ingle.api_server.ports.guest_files import GuestFiles

_E_co = TypeVar("_E_co", covariant=True)


class Conversation(Protocol[_E_co]):
    """A command, an attachment or a forward under way. Leaving its context ends it: the command's process group is
    killed if it still runs and is not detached; the session goes on, unless it ends with its viewer; the connection to
    the server breaks, which that sees as a reset, unless both directions have ended."""

    def events(self) -> AsyncIterator[_E_co]:
        """What the guest says. A lost connection raises GuestError: a stream without its last event is never taken for
        a success. Not reading slows the guest.

        Of a command Started, output as it comes, then Exited; Started alone when it is detached. COMMAND_TIMED_OUT when
        the guest itself doesn't end it in time. Of an attachment Attached, Scrollback if anything was said before, then
        Output, and Exited or Detached; who reads nothing for a second misses output, and is given Scrollback anew. Of a
        forward Connected, what the server sends, PeerEnded; ends when both directions have. CONNECTION_RESET when the
        server breaks the connection."""

    async def say(self, what: Said) -> None:
        """Returns when the connection can take more, which a guest that does not read puts off."""

    def leave(self) -> None:
        """Leave now, as by leaving the context; who waits for an event gets a GuestError."""


class GuestChannel(Protocol):
    """One agent. Every call is one connection, so calls never wait for each other.

    All raise GuestError: GUEST_UNREACHABLE when nobody answers in time, GUEST_PROTOCOL when the answer makes no sense.
    Cancelling a call closes its connection."""

    @property
    def files(self) -> GuestFiles:
        """The guest's files."""

    async def ping(self, timeout_seconds: float = 5.0) -> AgentInfo:
        """A round trip."""

    def exec(self, spec: ExecSpec) -> AbstractAsyncContextManager[Conversation[ExecEvent]]:
        """Start a command. GuestError COMMAND_NOT_FOUND, COMMAND_NOT_EXECUTABLE, GUEST_USER_NOT_FOUND,
        GUEST_GROUP_NOT_FOUND, GUEST_DIRECTORY_NOT_FOUND, RESOURCE_LIMIT_REFUSED or COMMAND_TIMED_OUT
        comes out of entering the context."""

    async def create_session(self, session_id: str, program: SessionProgram) -> GuestSession:
        """Start a command on a terminal that lives on without viewers; an empty id is made up. Raises GuestError
        NAME_TAKEN, and what `exec` raises."""

    def attach_session(self, spec: AttachSpec) -> AbstractAsyncContextManager[Conversation[SessionEvent]]:
        """Become a session's one viewer. GuestError SESSION_NOT_FOUND, or SESSION_ATTACHED when it has one that is not
        to be replaced, comes out of entering the context."""

    async def list_sessions(self, timeout_seconds: float = 5.0) -> tuple[GuestSession, ...]:
        """All of them, oldest first."""

    async def resize_session(self, session_id: str, size: TerminalSize) -> None:
        """Change the size of a terminal. GuestError SESSION_NOT_FOUND."""

    async def kill_session(self, session_id: str, timeout_seconds: float = 10.0) -> None:
        """SIGHUP for all of a session, SIGKILL a second later; returns when it is gone. GuestError
        SESSION_NOT_FOUND."""

    async def take_identity(self, identity: GuestIdentity, timeout_seconds: float = 10.0) -> IdentityTaken:
        """Tell the guest who it is. All of it is checked in the guest before anything is changed: INVALID_ARGUMENT,
        GUEST_INTERFACE_NOT_FOUND, GUEST_USER_NOT_FOUND; SSH keys may find GUEST_DIRECTORY_NOT_FOUND or a file's reason
        later. Doing it again is fine.

        A whole identity, one with a token, may fail half-way: IDENTITY_PENDING, which is then the answer to everything
        but another one, still by this channel's token, and `shutdown`. Once it is taken, this channel's token is worth
        nothing."""

    async def rest(self, timeout_seconds: float = 75.0) -> HookResult | None:
        """Have the guest stand still: its hook `suspend` is run, what is not on its disk is written, and all processes
        are frozen but the agent. Answers how the hook has ended, None where there is none or the guest rested already.
        GUEST_RESTLESS when something would not stand still; then all goes on. Where it is not known what came of it, as
        when this is cancelled, `thaw` makes sure.

        A guest that rests answers `ping`, `stats`, `activity`, `sync`, `take_identity`, `rest`, `thaw`, `shutdown`, and
        GUEST_RESTING to all else."""

    async def thaw(self, *, forked: bool = False, timeout_seconds: float = 30.0) -> HookResult | None:
        """Have a guest that rests go on, after its hook `resume`, or `fork` where it is another guest by now. Answers
        how that has ended, None where there is none or the guest did not rest."""

    async def stats(self, timeout_seconds: float = 5.0) -> GuestStats:
        """Load, processors, memory, disk and network."""

    async def activity(self, timeout_seconds: float = 5.0) -> GuestActivity:
        """What clients do in the guest, and how long ago anything passed. Whoever is stuck there holds nothing up."""

    def forward(self, spec: ForwardSpec) -> AbstractAsyncContextManager[Conversation[ForwardEvent]]:
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

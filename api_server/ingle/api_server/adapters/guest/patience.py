"""How long a guest may take. Each limit ends as GUEST_UNREACHABLE, or as is said."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """Generous to a guest that is emulated on a busy host, and finite for one that wants to keep us."""

    start_seconds: float = 30.0
    """To its first words."""
    frame_seconds: float = 60.0
    """For what is left of a frame, or 64 KiB of it, once it has begun."""
    answer_seconds: float = 120.0
    """For an answer that takes a look at one file or one directory."""
    work_seconds: float = 3600.0
    """Between one piece of content and the next, to take one, and for what has much to do: to remove a tree, say."""
    late_seconds: float = 3.0
    """To say nothing, in all, after a command's timeout: it asks politely, kills, and tells. COMMAND_TIMED_OUT."""


PATIENCE = Patience()

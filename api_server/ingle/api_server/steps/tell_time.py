"""Have a running guest show the time that it is."""

import secrets
from dataclasses import replace

from ingle.api_server.model.guest import GuestIdentity
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.guest import GuestChannel

_TOLERANCE_SECONDS = 0.025
_TELL_SECONDS = 10.0
_ATTEMPTS = 5
_ENTROPY_BYTES = 64


def news(hostname: str = "") -> GuestIdentity:
    """What a guest that stood still has to hear before it goes on, with its name when that is another one.

    Whoever has read what was saved of its memory knows what its random numbers were to be, so they become others. A
    time that somebody in the guest has set is theirs."""
    entropy = secrets.token_bytes(_ENTROPY_BYTES)
    return GuestIdentity(hostname=hostname, entropy=entropy, clock_unless_set_by_guest=True)


async def tell_time(channel: GuestChannel, clock: Clock, identity: GuestIdentity) -> None:
    """Tell the guest who it is, and what time: its clock is within 50 ms of the host's then.

    Half of that is for a clock that is nearly right, which is left as it is. The other half is for the way, since the
    time is that when the question began it. So it is told again when that took longer, as with the first words of a
    guest whose code is all to be translated. Raises GuestError."""
    for _ in range(_ATTEMPTS):
        began = clock.monotonic()
        time = clock.unix_nanoseconds()
        now = replace(identity, unix_nanoseconds=time, clock_tolerance_seconds=_TOLERANCE_SECONDS)
        await channel.take_identity(now, _TELL_SECONDS)
        if clock.monotonic() - began < _TOLERANCE_SECONDS:
            return
        identity = GuestIdentity(clock_unless_set_by_guest=identity.clock_unless_set_by_guest)

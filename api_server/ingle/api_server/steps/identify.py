"""Tell the guest who it is, and what only a running one can be told."""

import logging
from collections.abc import Mapping
from dataclasses import replace

from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import GuestIdentity
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.engine import Engine, engine_of
from ingle.api_server.ports.guest import GuestChannel, GuestDialler
from ingle.api_server.steps import hooks
from ingle.api_server.steps.target import Cold, Start
from ingle.api_server.steps.tell_time import tell_time

log = logging.getLogger(__name__)

_IDENTITY_SECONDS = 30.0
_BROKEN = frozenset({Reason.GUEST_UNREACHABLE, Reason.GUEST_PROTOCOL, Reason.IDENTITY_PENDING})


class Identify(Cold):
    """A guest that has booted knows who it is from its boot configuration. One that goes on from a memory takes a whole
    identity, with a token of its own, before anybody else is answered. Then both are told the time, since the clock
    that a guest reads while it boots shows whole seconds, and who may come in; and one that rests goes on.

    SSH keys that can't be installed fail a creation. Later the guest is its owner's, who may have made of ~/.ssh what
    they like, and needs a running VM to change that."""

    name = "identity"
    text = "telling the guest who it is"

    def __init__(self, dialler: GuestDialler, clock: Clock, engines: Mapping[str, Engine]) -> None:
        self._dialler = dialler
        self._clock = clock
        self._engines = engines

    async def run(self, target: Start) -> None:
        channel = self._dialler.channel(target.live_vmm.agent)
        remembers = target.memory is not None
        if remembers:
            await self._become(target)
        keys = target.vm.settings.ssh_keys
        try:
            await self._tell(channel, {"": keys} if keys or remembers else {})
        except GuestError as error:
            if target.created or not keys or error.reason in _BROKEN:
                raise
            log.warning("SSH keys could not be installed", extra={"vm": target.vm_id, "error": error.message})
            await self._tell(channel, {})
        if remembers and target.warm is None:  # nobody has put that one to rest
            hooks.note(await channel.thaw(forked=target.created), target.vm_id)

    async def _become(self, target: Start) -> None:
        """The guest still wants the token that it had when its memory was saved."""
        engine = engine_of(target.vm, self._engines)
        identity = replace(
            engine.boot_config(target.vm, target.token, target.link).identity,
            announce=True,
            unix_nanoseconds=self._clock.unix_nanoseconds(),
            disk_bytes=target.vm.settings.disk_bytes,
        )
        former = self._dialler.channel(replace(target.live_vmm.agent, token=target.memory_token))
        await former.take_identity(identity, _IDENTITY_SECONDS)

    async def _tell(self, channel: GuestChannel, ssh_keys: Mapping[str, tuple[str, ...]]) -> None:
        await tell_time(channel, self._clock, GuestIdentity(ssh_keys=ssh_keys))

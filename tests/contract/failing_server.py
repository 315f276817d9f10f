"""A server with fake engines that has bad luck in the middle of the first memory that is saved: python -m
contract.failing_server ENGINE serve. FAILS_BY is `full`, for its disk, `killed`, for the VMM, or
`silent`, for the agent: it says nothing more until its VM is resumed another time;
`deaf`, for the agent too: it can't be told to go on, from the beginning;
`stubborn`, for the agent too: it takes no other identity."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from ingle.api_server import main
from ingle.api_server.adapters.guest.channel import Channel
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import GuestIdentity, IdentityTaken
from ingle.api_server.steps import save_guest
from ingle.testing.fake_engine import FakeVmm
from ingle.testing.serve import engines
from small_disk import fill

_save, _resume = FakeVmm.save, FakeVmm.resume
_take_identity = Channel.take_identity


async def save(self: FakeVmm, directory: Path) -> None:
    FakeVmm.save = _save  # type: ignore[method-assign]
    if os.environ["FAILS_BY"] == "full":
        fill(directory.parents[3])
    elif os.environ["FAILS_BY"] == "silent":
        FakeVmm.resume = resume  # type: ignore[method-assign]
    elif os.environ["FAILS_BY"] == "killed":
        os.kill(self.pid, signal.SIGKILL)
    await _save(self, directory)


async def resume(self: FakeVmm) -> None:
    FakeVmm.resume = _resume  # type: ignore[method-assign]


async def take_identity(self: Channel, identity: GuestIdentity, timeout_seconds: float = 10.0) -> IdentityTaken:
    if identity.token:
        raise GuestError(Reason.GUEST_UNREACHABLE, "it stays who it is")
    return await _take_identity(self, identity, timeout_seconds)


async def thaw(self: Channel, **fields: Any) -> Any:
    raise GuestError(Reason.GUEST_UNREACHABLE, "it does not hear")


if __name__ == "__main__":
    vars(save_guest)["_THAW_SECONDS"] = 1.0
    if os.environ["FAILS_BY"] == "deaf":
        Channel.thaw = thaw  # type: ignore[method-assign]
    elif os.environ["FAILS_BY"] == "stubborn":
        Channel.take_identity = take_identity  # type: ignore[method-assign]
    else:
        FakeVmm.save = save  # type: ignore[method-assign]
    sys.exit(main.main(sys.argv[2:], engines=engines))

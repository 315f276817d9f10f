"""A server with fake engines that kills itself: python -m contract.dying_server ENGINE serve.

KILL_KIND is the kind of operation in whose course it does, KILL_AT where: a number is that of the transaction before
which it dies, counted from the beginning of the operation, which has none before; `resume` and `thaw` are what it was
about to tell a guest that stands still.
"""

import os
import signal
import sys
from contextlib import AbstractAsyncContextManager
from typing import Any

from ingle.api_server import main
from ingle.api_server.adapters.guest.channel import Channel
from ingle.api_server.adapters.sqlite.database import Database
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.operations.runner import Operations
from ingle.testing.fake_engine import FakeVmm
from ingle.testing.serve import engines

_KIND, _AT = OperationKind[os.environ["KILL_KIND"]], os.environ["KILL_AT"]

_begin, _transaction = Operations.begin, Database.transaction
_resume, _thaw = FakeVmm.resume, Channel.thaw


class Fate:
    """How many transactions are left; None before the operation has begun."""

    left: int | None = None

    def die(self, at: str) -> None:
        """If it is to happen there."""
        if self.left is not None and at == _AT:
            os.kill(os.getpid(), signal.SIGKILL)


_fate = Fate()


async def begin(self: Operations, op_id: str, owner: int, kind: OperationKind, *rest: Any) -> Any:
    if kind is _KIND:
        _fate.left = int(_AT) if _AT.isdecimal() else -1
    return await _begin(self, op_id, owner, kind, *rest)


def transaction(self: Database) -> AbstractAsyncContextManager[Any]:
    if _fate.left is not None:
        if _fate.left == 0:
            _fate.die(_AT)
        _fate.left -= 1
    return _transaction(self)


async def resume(self: FakeVmm) -> None:
    _fate.die("resume")
    await _resume(self)


async def thaw(self: Channel, **fields: Any) -> Any:
    _fate.die("thaw")
    return await _thaw(self, **fields)


if __name__ == "__main__":
    Operations.begin = begin  # type: ignore[method-assign,assignment]
    Database.transaction = transaction  # type: ignore[method-assign,assignment]
    FakeVmm.resume = resume  # type: ignore[method-assign]
    Channel.thaw = thaw  # type: ignore[method-assign]
    sys.exit(main.main(sys.argv[2:], engines=engines))

"""Creates that are sent again: what was asked for once is made once."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar
from weakref import WeakValueDictionary

from ingle.api_server.model.caller import Caller
from ingle.api_server.model.errors import InvalidArgument, NotFound
from ingle.api_server.model.operation import Operation, OperationState
from ingle.api_server.operations.runner import Ongoing, Operations
from ingle.api_server.ports.store.requests import Asked, RequestKey, RequestStore

_LONGEST_ID = 128

R = TypeVar("R")


class Repeats:
    """Knows which operation does what was asked for by an id."""

    def __init__(self, operations: Operations, requests: RequestStore) -> None:
        self._operations = operations
        self._requests = requests
        self._locks: WeakValueDictionary[RequestKey, asyncio.Lock] = WeakValueDictionary()

    async def once(
        self, key: RequestKey, asked: Asked, begin: Callable[[], Awaitable[Ongoing[R]]]
    ) -> Ongoing[R] | Operation:
        """What `begin` begins, as `asked.op_id`; or the operation that an earlier call of the same `key` has begun,
        while it runs and when it has succeeded. One that has not is as if it had never been asked for.

        Raises InvalidArgument when something else was asked for then."""
        if len(key.request_id) > _LONGEST_ID or not (key.request_id.isascii() and key.request_id.isprintable()):
            raise InvalidArgument(
                f"request_id: at most {_LONGEST_ID} printable characters of ASCII are allowed", field="request_id"
            )
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            earlier = await self._requests.get(key)
            if earlier is not None:
                with suppress(NotFound):  # it was never begun, or is forgotten
                    operation = await self._operations.get(earlier.op_id, Caller(key.uid))
                    if operation.state in (OperationState.RUNNING, OperationState.SUCCEEDED):
                        _check_same(earlier, asked)
                        return operation
            # Before it begins: a server that is killed in between has begun nothing.
            await self._requests.save(key, asked)
            return await begin()

    async def ended(self, operation: Operation) -> Operation:
        """The same when it is over. Leaving does not cancel it: it is another call's."""
        last = operation
        async for now in self._operations.watch(operation.id, Caller(operation.owner)):
            last = now
        return last


def _check_same(earlier: Asked, asked: Asked) -> None:
    if earlier.digest != asked.digest:
        raise InvalidArgument(
            f"request_id: operation {earlier.op_id} has it, and something else was asked for there",
            "give each wish an id of its own",
            field="request_id",
        )

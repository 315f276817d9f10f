"""What was asked for once is made once, however often its caller asks, and whichever server answers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.adapters.sqlite import operations as stored_operations
from ingle.api_server.adapters.sqlite import requests as stored_requests
from ingle.api_server.model.errors import InvalidArgument, Reason, ToolFailed
from ingle.api_server.model.operation import Operation, OperationKind, OperationState
from ingle.api_server.operations.repeats import Repeats
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.ports.store.requests import Asked, RequestKey
from unit.api_server.vmms import StillClock

KEY = RequestKey(1000, "a wish")


class Server:
    """One that makes things, and counts them."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.operations = Operations(store.operations, StillClock())
        self.repeats = Repeats(self.operations, store.requests)
        self.made: list[str] = []
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.failure: Exception | None = None

    async def ask(self, op_id: str, key: RequestKey = KEY, digest: bytes = b"one") -> Ongoing[str] | Operation:
        async def work(progress: Progress) -> str:
            await self.may_end.wait()
            if self.failure is not None:
                raise self.failure
            self.made.append(op_id)
            return op_id

        def begin() -> Awaitable[Ongoing[str]]:
            return self.operations.begin(op_id, key.uid, OperationKind.CREATE_VM, work, f"vm of {op_id}")

        return await self.repeats.once(key, Asked(digest, op_id), begin)


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Server]:
    async with SqliteStore(path / "ingle.db") as store:
        server = Server(store)
        yield server
        await server.operations.close()


async def result(begun: Ongoing[str] | Operation) -> str:
    assert isinstance(begun, Ongoing)
    return await begun.result()


async def test_a_repeated_create_is_the_first_one_also_for_the_next_server(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        assert await result(await server.ask("op-1")) == "op-1"
        again = await server.ask("op-2")
        assert isinstance(again, Operation)
        assert (again.id, again.state, server.made) == ("op-1", OperationState.SUCCEEDED, ["op-1"])
    async with running(tmp_path) as server:
        again = await server.ask("op-3")
        assert isinstance(again, Operation)
        assert (again.id, again.target_id, server.made) == ("op-1", "vm of op-1", [])


async def test_of_many_at_once_one_begins_and_the_others_wait_for_it(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        server.may_end.clear()
        asked = await asyncio.gather(*(server.ask(f"op-{number}") for number in range(10)))
        (first,) = [begun for begun in asked if isinstance(begun, Ongoing)]
        others = [begun for begun in asked if isinstance(begun, Operation)]
        assert {operation.id for operation in others} == {first.operation.id}
        ends = asyncio.gather(*(server.repeats.ended(operation) for operation in others))
        server.may_end.set()
        assert {operation.state for operation in await ends} == {OperationState.SUCCEEDED}
        assert len(server.made) == 1


async def test_who_waits_for_anothers_create_and_leaves_does_not_cancel_it(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        server.may_end.clear()
        first, second = await server.ask("op-1"), await server.ask("op-2")
        assert isinstance(second, Operation)
        waiting = asyncio.create_task(server.repeats.ended(second))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        server.may_end.set()
        assert await result(first) == "op-1"


async def test_what_failed_or_was_cancelled_is_made_anew(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        server.failure = ToolFailed(Reason.TOOL_FAILED, "no")
        with pytest.raises(ToolFailed):
            await result(await server.ask("op-1"))
        server.failure = None
        server.may_end.clear()
        second = await server.ask("op-2")
        assert isinstance(second, Ongoing)
        await second.cancel()
        server.may_end.set()
        assert await result(await server.ask("op-3")) == "op-3"
        assert server.made == ["op-3"]


async def test_what_was_refused_before_it_began_is_as_if_never_asked(tmp_path: Path) -> None:
    async with running(tmp_path) as server:

        async def refuse() -> Ongoing[str]:
            raise InvalidArgument("no")

        with pytest.raises(InvalidArgument):
            await server.repeats.once(KEY, Asked(b"one", "op-1"), refuse)
        assert await result(await server.ask("op-2", digest=b"other")) == "op-2"


async def test_an_id_is_for_one_wish_of_one_user(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        await result(await server.ask("op-1"))
        with pytest.raises(InvalidArgument, match="op-1") as refused:
            await server.ask("op-2", digest=b"other")
        assert refused.value.field == "request_id"
        assert await result(await server.ask("op-3", KEY._replace(uid=1001), b"other")) == "op-3"


@pytest.mark.parametrize("request_id", ["x" * 129, "é", "a\nb", "\0"])
async def test_an_id_that_can_not_be_one_is_refused(tmp_path: Path, request_id: str) -> None:
    async with running(tmp_path) as server:
        with pytest.raises(InvalidArgument, match="128"):
            await server.ask("op-1", KEY._replace(request_id=request_id))


async def test_no_more_than_so_many_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_requests, "_KEPT", 3)
    async with running(tmp_path) as server:
        requests = server.store.requests
        for number in range(10):
            await requests.save(RequestKey(0, str(number)), Asked(b"", "op"))
        kept = [number for number in range(10) if await requests.get(RequestKey(0, str(number))) is not None]
        assert kept == [7, 8, 9]


async def test_what_others_ask_for_makes_nobodys_wish_be_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_requests, "_KEPT", 3)
    monkeypatch.setattr(stored_operations, "_KEPT", 3)
    async with running(tmp_path) as server:
        assert await result(await server.ask("op-hers")) == "op-hers"
        for number in range(10):
            await result(await server.ask(f"op-{number}", RequestKey(1001, str(number))))
        again = await server.ask("op-again")
        assert isinstance(again, Operation), "it is not made twice"
        assert again.id == "op-hers"

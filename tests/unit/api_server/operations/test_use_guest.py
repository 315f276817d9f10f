"""The one door into guests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from ingle.api_server.model.errors import Conflict, GuestError, IngleError, InvalidArgument, NotFound, Reason
from ingle.api_server.model.guest import ExecEvent, Exited, Input, Said, Started
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.ports.guest import Conversation, GuestChannel
from unit.api_server.vmms import VM, World, mine, world

Enter = Callable[[UseGuest], AbstractAsyncContextManager[GuestChannel]]
UNREACHABLE = GuestError(Reason.GUEST_UNREACHABLE, "it hung up")


@pytest.mark.parametrize("enter", [lambda guests: guests.use(mine(VM.id)), lambda guests: guests.look(mine(VM.id[:6]))])
async def test_who_was_in_a_vm_that_ended_is_told_so_whatever_the_call(tmp_path: Path, enter: Enter) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        with pytest.raises(GuestError, match="was stopped in the middle of it") as told:
            await stop_within(at, enter)
        assert told.value.reason is Reason.VM_ENDED


async def test_why_a_vmm_has_died_is_told_before_it_is_recorded(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        with pytest.raises(GuestError, match="died in the middle of it: signal 9"):
            await die_within(at)


async def test_only_who_changes_nothing_may_shorten_an_id(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        async with at.guests.look(mine(VM.id[:6])):
            pass
        with pytest.raises(NotFound):
            async with at.guests.use(mine(VM.id[:6])):
                pass


async def test_there_is_no_way_into_a_vm_that_does_not_run(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        vm = await at.store.vms.get(VM.id)
        for enter in (at.guests.use, at.guests.look):
            with pytest.raises(Conflict, match="is not running"):
                async with enter(mine(VM.id)):
                    pass
        with pytest.raises(Conflict, match="is not running"):
            at.guests.peek(vm)


class Talk:
    """A conversation whose command is killed by a signal once it was told something."""

    def __init__(self) -> None:
        self.heard: list[Said] = []
        self.left = False

    async def events(self) -> AsyncIterator[ExecEvent]:
        yield Started(1)
        yield Exited(143, signal=15)

    async def say(self, what: Said) -> None:
        self.heard.append(what)

    def leave(self) -> None:
        self.left = True


def begin(
    talk: Conversation[ExecEvent],
) -> Callable[[GuestChannel, Vm], AbstractAsyncContextManager[Conversation[ExecEvent]]]:
    @asynccontextmanager
    async def begun(channel: GuestChannel, vm: Vm) -> AsyncIterator[Conversation[ExecEvent]]:
        yield talk

    return begun


async def nothing() -> AsyncIterator[Said]:
    return
    yield Input(b"")


async def test_a_command_that_was_killed_with_its_vm_is_no_command_that_was_killed(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPING) as at:
        running = await at.store.vms.move(VM.id, VmState.RUNNING)
        events = at.guests.converse(mine(running.id), begin(Talk()), nothing())
        assert isinstance(await anext(events), Started)
        await at.store.vms.move(VM.id, VmState.STOPPING)
        with pytest.raises(GuestError, match="was stopped in the middle of it"):
            await anext(events)


async def test_a_caller_whose_words_can_not_be_taken_is_left_and_told_why(tmp_path: Path) -> None:
    class Waits(Talk):
        async def events(self) -> AsyncIterator[ExecEvent]:
            yield Started(1)
            while not self.left:
                await asyncio.sleep(0)
            raise UNREACHABLE

    async def nonsense() -> AsyncIterator[Said]:
        yield Input(b"well")
        raise InvalidArgument("this makes no sense")

    async with world(tmp_path, VmState.RUNNING) as at:
        talk = Waits()
        with pytest.raises(IngleError, match="makes no sense"):
            async for _ in at.guests.converse(mine(VM.id), begin(talk), nonsense()):
                pass
        assert talk.heard == [Input(b"well")]


async def stop_within(at: World, enter: Enter) -> None:
    async with enter(at.guests):
        await at.store.vms.move(VM.id, VmState.STOPPING)
        await at.store.vms.move(VM.id, VmState.STOPPED)
        raise UNREACHABLE


async def die_within(at: World) -> None:
    async with at.guests.use(mine(VM.id)):
        at.vmm.failure = "signal 9"
        at.vmm.gone.set()
        raise UNREACHABLE

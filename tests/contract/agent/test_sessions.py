"""Terminals: commands that outlive whoever looks at them."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import (
    Attached,
    AttachSpec,
    Detached,
    Exited,
    GuestSession,
    Input,
    Output,
    Scrollback,
    SessionEvent,
    SessionProgram,
    TerminalSize,
)
from ingle.api_server.ports.guest import Conversation, GuestChannel

Gone = Callable[[int], Awaitable[None]]

_SCROLLBACK = 64 * 1024


class Viewer:
    """An attachment, and what it has shown."""

    def __init__(self, attachment: Conversation[SessionEvent]) -> None:
        self.attachment = attachment
        self.events = attachment.events()
        self.shown = b""

    async def next(self) -> SessionEvent:
        async with asyncio.timeout(20):
            event = await anext(self.events)
        if isinstance(event, (Output, Scrollback)):
            self.shown += event.data
        return event

    async def until(self, text: bytes) -> bytes:
        while text not in self.shown:
            assert isinstance(await self.next(), (Output, Scrollback, Attached)), self.shown
        return self.shown

    async def end(self) -> SessionEvent:
        while not isinstance(event := await self.next(), (Exited, Detached)):
            pass
        return event

    async def type(self, text: str) -> None:
        await self.attachment.say(Input(text.encode()))


@asynccontextmanager
async def viewing(
    channel: GuestChannel, session_id: str, *argv: str, steal: bool = False, **options: object
) -> AsyncIterator[Viewer]:
    """Attached; with argv to a session that is made if need be."""
    create = SessionProgram(argv, **options) if argv or options else None  # type: ignore[arg-type]
    async with channel.attach_session(AttachSpec(session_id, steal=steal, create=create)) as attachment:
        viewer = Viewer(attachment)
        assert isinstance(await viewer.next(), Attached)
        yield viewer


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.005)


async def find(channel: GuestChannel, session_id: str) -> GuestSession | None:
    return next((session for session in await channel.list_sessions() if session.id == session_id), None)


@pytest.fixture
async def cat(channel: GuestChannel) -> AsyncIterator[GuestSession]:
    """A session with a program that goes on until it is killed."""
    session = await channel.create_session("", SessionProgram(("cat",)))
    yield session
    if await find(channel, session.id):
        await channel.kill_session(session.id)


async def refusal(work: Awaitable[object]) -> Reason:
    with pytest.raises(GuestError) as caught:
        await work
    return caught.value.reason


async def test_a_program_has_a_terminal_of_the_asked_size_and_its_exit_code_arrives(channel: GuestChannel) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && stty size; tty </dev/tty; echo $TERM; exit 3"
    size = TerminalSize(33, 111)
    async with viewing(channel, "", "sh", "-c", script, size=size, env={"TERM": "vt100"}) as viewer:
        assert await viewer.end() == Exited(3)
    assert re.fullmatch(rb"33 111\r\n/dev/(tty|pts/\d+)\r\nvt100\r\n", viewer.shown)


async def test_without_a_command_it_is_the_users_login_shell(channel: GuestChannel, tmp_path: Path) -> None:
    without_start_up_files = {"HOME": str(tmp_path)}
    async with viewing(channel, "", user="root", env=without_start_up_files) as viewer:
        await viewer.type("echo in-$0-; exit 7\n")
        assert await viewer.end() == Exited(7)
    assert re.search(rb"in--\w+-", viewer.shown)


async def test_what_is_typed_arrives_and_ctrl_c_interrupts(channel: GuestChannel) -> None:
    script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.01; done"
    async with viewing(channel, "", "sh", "-c", script) as viewer:
        await viewer.until(b"ready")
        await viewer.type("\x03")
        assert await viewer.end() == Exited(9)
        assert b"interrupted" in viewer.shown


async def test_a_signal_that_ended_the_program_is_told(channel: GuestChannel) -> None:
    async with viewing(channel, "", "sh", "-c", "kill -TERM $$") as viewer:
        assert await viewer.end() == Exited(143, signal=15)


async def test_it_goes_on_without_a_viewer_and_shows_the_next_one_what_it_said(
    channel: GuestChannel, cat: GuestSession
) -> None:
    async with viewing(channel, cat.id) as viewer:
        await viewer.type("first\n")
        await viewer.until(b"first\r\nfirst\r\n")
    async with viewing(channel, cat.id, steal=True) as viewer:
        event = await viewer.next()
        assert isinstance(event, Scrollback)
        assert event.data == b"first\r\nfirst\r\n"
        await viewer.type("second\n")
        await viewer.until(b"second\r\nsecond\r\n")


async def test_the_last_64_kib_come_back_in_one_piece_before_live_output(channel: GuestChannel) -> None:
    script = "seq 30000; echo end; while :; do echo live; sleep 0.001; done"
    session = await channel.create_session("", SessionProgram(("sh", "-c", script)))
    async with viewing(channel, session.id) as viewer:
        await viewer.until(b"live")
    async with viewing(channel, session.id, steal=True) as viewer:
        event = await viewer.next()
        assert isinstance(event, Scrollback)
        assert len(event.data) == _SCROLLBACK
        while viewer.shown.count(b"live") < 200:
            assert isinstance(await viewer.next(), Output)
        _, _, live = viewer.shown.partition(b"end\r\n")
        assert set(live.split(b"\r\n")[:-1]) == {b"live"}
        before = [int(line) for line in viewer.shown.split(b"end\r\n")[0].split(b"\r\n")[1:-1]]
        assert before == list(range(before[0], 30001))
    await channel.kill_session(session.id)


async def test_a_viewer_who_reads_misses_nothing(channel: GuestChannel) -> None:
    async with viewing(channel, "", "seq", "200000") as viewer:
        assert await viewer.end() == Exited(0)
    assert viewer.shown == b"".join(b"%d\r\n" % number for number in range(1, 200001))


async def test_resizing_tells_the_program(channel: GuestChannel) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.01; done"
    session = await channel.create_session("", SessionProgram(("sh", "-c", script)))
    async with viewing(channel, session.id) as viewer:
        await viewer.until(b"ready")
        await viewer.attachment.say(TerminalSize(50, 132))
        await viewer.until(b"50 132")
        await channel.resize_session(session.id, TerminalSize(65535, 1))
        await viewer.until(b"65535 1")
    listed = await find(channel, session.id)
    assert listed is not None
    assert listed.size == TerminalSize(65535, 1)
    await channel.kill_session(session.id)


@pytest.mark.parametrize("size", [TerminalSize(0, 80), TerminalSize(24, 0), TerminalSize(65536, 80)], ids=str)
async def test_a_size_that_no_terminal_has_is_refused(
    channel: GuestChannel, cat: GuestSession, size: TerminalSize
) -> None:
    assert await refusal(channel.resize_session(cat.id, size)) is Reason.INVALID_ARGUMENT
    assert await refusal(channel.create_session("", SessionProgram(("cat",), size=size))) is Reason.INVALID_ARGUMENT
    async with viewing(channel, cat.id) as viewer:
        await viewer.attachment.say(size)
        assert await refusal(viewer.end()) is Reason.INVALID_ARGUMENT


async def test_the_list_tells_what_a_person_wants_to_know(channel: GuestChannel) -> None:
    argv = ("sleep", "1000")
    created = await channel.create_session("listed", SessionProgram(argv, size=TerminalSize(10, 20)))
    assert (created.id, created.argv, created.size, created.attached) == ("listed", argv, TerminalSize(10, 20), False)
    async with viewing(channel, "listed"):
        listed = await find(channel, "listed")
        assert listed is not None
        assert listed.attached
        assert 0 <= listed.idle_seconds <= listed.age_seconds
    await channel.kill_session("listed")
    assert await find(channel, "listed") is None


async def test_long_commands_are_cut_in_the_list(channel: GuestChannel) -> None:
    command = ("sh", "-c", "exec sleep 1000")
    created = await channel.create_session("", SessionProgram((*command, "ü" * 2000)))
    assert created.argv[:3] == command
    assert created.argv[3].startswith("ü" * 100)
    await channel.kill_session(created.id)


async def test_ids_are_unique_and_well_formed(channel: GuestChannel, cat: GuestSession) -> None:
    assert await refusal(channel.create_session(cat.id, SessionProgram(("cat",)))) is Reason.NAME_TAKEN
    assert await refusal(channel.create_session("a/b", SessionProgram(("cat",)))) is Reason.INVALID_ARGUMENT
    for work in (
        channel.kill_session("nobody"),
        channel.resize_session("nobody", TerminalSize(1, 1)),
        viewing(channel, "nobody").__aenter__(),
    ):
        assert await refusal(work) is Reason.SESSION_NOT_FOUND


async def test_what_can_not_be_started_leaves_no_session(channel: GuestChannel) -> None:
    reason = await refusal(viewing(channel, "broken", "no-such-command").__aenter__())
    assert reason is Reason.COMMAND_NOT_FOUND
    assert await find(channel, "broken") is None


async def test_the_well_known_id_is_opened_once_and_found_again(channel: GuestChannel) -> None:
    async with viewing(channel, "init", "cat") as viewer:
        await viewer.type("here\n")
        await viewer.until(b"here\r\nhere\r\n")
    async with viewing(channel, "init", "cat", steal=True) as viewer:
        await viewer.until(b"here\r\nhere\r\n")
    await channel.kill_session("init")


async def test_a_second_viewer_is_refused_unless_it_steals(channel: GuestChannel, cat: GuestSession) -> None:
    async with viewing(channel, cat.id) as first:
        assert await refusal(viewing(channel, cat.id).__aenter__()) is Reason.SESSION_ATTACHED
        async with viewing(channel, cat.id, steal=True) as second:
            assert await first.end() == Detached()
            await second.type("mine\n")
            await second.until(b"mine\r\nmine\r\n")


async def test_the_end_of_an_old_connection_never_detaches_the_new_owner(
    channel: GuestChannel, cat: GuestSession
) -> None:
    first = viewing(channel, cat.id)
    await first.__aenter__()
    async with viewing(channel, cat.id, steal=True) as second:
        await first.__aexit__(None, None, None)
        for _ in range(20):
            listed = await find(channel, cat.id)
            assert listed is not None
            assert listed.attached
        await second.type("still mine\n")
        await second.until(b"still mine\r\nstill mine\r\n")


async def test_a_stalled_viewer_blocks_neither_the_session_nor_the_list_nor_a_thief(
    channel: GuestChannel, cat: GuestSession
) -> None:
    script = "read go; yes | head -c 3000000; echo; echo the end; exec sleep 1000"
    session = await channel.create_session("", SessionProgram(("sh", "-c", script)))
    async with viewing(channel, session.id) as stalled:
        await stalled.type("go\n")  # and not a byte is taken from here on

        async def finished() -> bool:
            listed = await find(channel, session.id)
            assert listed is not None
            assert listed.attached
            return listed.idle_seconds > 1.2  # longer than the session waits for anybody

        await until(finished)
        async with viewing(channel, session.id, steal=True) as thief:
            await thief.until(b"the end")
    await channel.kill_session(session.id)


async def test_who_was_too_slow_goes_on_with_the_scrollback(channel: GuestChannel) -> None:
    script = "read go; yes | head -c 3000000; echo; echo the end; exec sleep 1000"
    async with viewing(channel, "slow", "sh", "-c", script) as viewer:
        await viewer.type("go\n")

        async def finished() -> bool:
            listed = await find(channel, "slow")
            return listed is not None and listed.idle_seconds > 1.2

        await until(finished)
        kinds = []
        while b"the end" not in viewer.shown:
            kinds.append(type(await viewer.next()))
        assert Scrollback in kinds
    await channel.kill_session("slow")


async def test_killing_ends_all_of_a_session_also_what_does_not_want_to(channel: GuestChannel, gone: Gone) -> None:
    job = "sh -c 'echo pid $$; while :; do sleep 1; done'"
    script = f"trap '' HUP TERM; set -m; {job} & echo pid $$; while :; do wait; done"
    async with viewing(channel, "deaf", "sh", "-c", script) as viewer:
        while len(pids := re.findall(rb"pid (\d+)\r\n", viewer.shown)) < 2:
            await viewer.next()
        await channel.kill_session("deaf")
        assert await viewer.end() == Exited(137, signal=9)
    for pid in pids:
        await gone(int(pid))
    assert await find(channel, "deaf") is None


async def test_killing_is_polite_first(channel: GuestChannel) -> None:
    async with viewing(
        channel, "", "sh", "-c", "trap 'exit 5' HUP; echo ready; while :; do sleep 0.01; done"
    ) as viewer:
        await viewer.until(b"ready")
        (session,) = [session for session in await channel.list_sessions() if session.argv[0] == "sh"]
        await channel.kill_session(session.id)
        assert await viewer.end() == Exited(5)


async def test_a_session_that_ends_with_its_viewer_does(channel: GuestChannel, gone: Gone) -> None:
    script = "echo pid $$; exec sleep 1000"
    async with viewing(channel, "brief", "sh", "-c", script, end_with_viewer=True) as viewer:
        found = None
        while not (found := re.search(rb"pid (\d+)\r\n", viewer.shown)):
            await viewer.next()
    await gone(int(found[1]))


async def test_an_idle_session_is_ended_and_an_attached_one_is_not(channel: GuestChannel) -> None:
    async with viewing(channel, "idle", "cat", idle_timeout_seconds=0.05) as viewer:
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert await find(channel, "idle")
        await viewer.type("awake\n")
        await viewer.until(b"awake\r\nawake\r\n")

    async def ended() -> bool:
        return await find(channel, "idle") is None

    await until(ended)


async def test_a_process_left_behind_does_not_keep_a_session(channel: GuestChannel) -> None:
    script = "trap '' HUP; sleep 30 & echo pid $!; exit 4"
    async with viewing(channel, "", "sh", "-c", script) as viewer:
        assert await viewer.end() == Exited(4)
    found = re.search(rb"pid (\d+)", viewer.shown)
    assert found
    async with channel.attach_session(
        AttachSpec("", create=SessionProgram(("kill", "-9", found[1].decode())))
    ) as attachment:
        assert await Viewer(attachment).end() == Exited(0)


async def test_fifty_sessions_come_and_go(channel: GuestChannel) -> None:
    async def one(number: int) -> None:
        async with viewing(channel, f"n{number}", "sh", "-c", f"echo {number}; exit {number}") as viewer:
            assert await viewer.end() == Exited(number)
            assert viewer.shown == b"%d\r\n" % number

    async with asyncio.TaskGroup() as tasks:
        for number in range(50):
            tasks.create_task(one(number))
    assert not [session for session in await channel.list_sessions() if session.id.startswith("n")]

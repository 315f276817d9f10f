"""A guest that answers every request with the worst that the protocol allows, and a whole server that it can't hurt:
what it sends can't do more than end its connection."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import Server
from hostile_guest.agent import MESSAGES, RAW, attacks
from hostile_guest.caller import ENDLESS, METHODS, Caller, applies, hostile_server, may_be_endless
from hostile_guest.cases import ASK_NO_GUEST, CASES
from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest.frames import PAYLOADS, FrameType

LONGEST_HOLD_SECONDS = 0.3  # of processor time, which a busy host adds little to
AT_A_TIME = 12
MOST_GROWTH = 320 * 1024 * 1024
NO_FAULT_OF_THE_GUEST = {"INTERNAL", "INVALID_ARGUMENT", "SERVER_STOPPING", "MESSAGE_TOO_LARGE"}


def test_there_is_a_case_for_every_method_and_every_frame() -> None:
    assert set(METHODS) == set(CASES) | ASK_NO_GUEST
    assert not set(CASES) & ASK_NO_GUEST
    assert set(PAYLOADS) == set(MESSAGES) | RAW | {FrameType.RESPONSE}
    taken = {kind for case in CASES.values() for kind in case.frames}
    assert taken == set(MESSAGES)
    operations = {field.name for field in agent_pb2.Response.DESCRIPTOR.fields}
    assert operations | {"exec", "attach_session"} == {field.name for field in agent_pb2.Request.DESCRIPTOR.fields}


@pytest.fixture
def server() -> Iterator[Server]:
    with hostile_server() as server:
        yield server


def resident(pid: int, what: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise AssertionError(what)


@pytest.fixture
def caller(server: Server) -> Iterator[Caller]:
    caller = Caller(server)
    yield caller
    caller.leave()


def test_whatever_a_guest_answers_ends_its_call_and_nothing_else(server: Server, caller: Caller) -> None:
    assert server.process is not None
    before = resident(server.process.pid, "VmRSS")

    def attempt(name: str, attack: str) -> str:
        others = pool.submit(caller.another_is_answered)
        outcome = caller.outcome(name, attack)
        others.result()
        wrong = outcome in NO_FAULT_OF_THE_GUEST and not attack.startswith("ERROR-")  # which says so itself
        wrong |= outcome == ENDLESS and not may_be_endless(attack, CASES[name])
        return f"{name} of {attack}: {outcome}" if wrong else ""

    with ThreadPoolExecutor(AT_A_TIME) as hostile, ThreadPoolExecutor(AT_A_TIME) as pool:
        pairs = [(name, attack) for attack in attacks() for name, case in CASES.items() if applies(attack, case)]
        wrong = [problem for problem in hostile.map(lambda pair: attempt(*pair), pairs) if problem]
    slowest = sorted(caller.others)
    grown = resident(server.process.pid, "VmHWM") - before
    caller.leave()
    assert server.stop() == 0
    said = [json.loads(line) for line in server.log.read_text().splitlines()]
    held = said[-1]["held_seconds"]
    print(  # noqa: T201 - for who runs it with -s
        f"{len(slowest)} calls of others: p50 {slowest[len(slowest) // 2] * 1000:.0f} ms, "
        f"p99 {slowest[len(slowest) * 99 // 100] * 1000:.0f} ms, slowest {slowest[-1] * 1000:.0f} ms; "
        f"the event loop was held for {held * 1000:.0f} ms at most; memory grew by {grown >> 20} MiB at most"
    )
    faults = [line for line in said if "traceback" in line or line["level"] == "error"]
    assert not faults, "\n".join(f"{line['message']}\n{line.get('traceback', '')}" for line in faults[:3])
    assert not wrong
    assert held < LONGEST_HOLD_SECONDS
    assert grown < MOST_GROWTH


FLOODS = [
    ("GuestService.ListDirectory", "endless-ENTRIES-empty"),
    ("GuestService.ReadFile", "endless-DATA-empty"),
    ("GuestService.ReadFile", "endless-DATA-tiny"),
    ("GuestService.AttachSession", "endless-SCROLLBACK-tiny"),
    ("GuestService.Exec", "endless-WINDOW-empty"),
]


@pytest.mark.parametrize(("name", "attack"), FLOODS)
def test_a_server_that_is_flooded_answers_others_and_ends_when_it_is_told(
    server: Server, caller: Caller, name: str, attack: str
) -> None:
    flood = caller.begin(name, attack)
    for _ in range(5):
        caller.another_is_answered()
    assert server.stop() == 0
    flood.cancel()


def test_a_server_in_the_middle_of_everything_ends_when_it_is_told(server: Server, caller: Caller) -> None:
    attacks = ("silence", "drip-of-data", "endless-DATA-tiny", "endless-STDOUT-tiny", "endless-ENTRIES-empty")
    calls = [caller.begin(name, attack) for name in CASES for attack in attacks]
    caller.another_is_answered()
    assert server.stop() == 0
    for call in calls:
        call.cancel()

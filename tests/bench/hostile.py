"""What others notice of guests that answer with the worst that the protocol allows."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from bench.measure import Figure, Row, Sample, told_row
from hostile_guest.agent import attacks
from hostile_guest.caller import Caller, applies, hostile_server
from hostile_guest.cases import CASES

AT_A_TIME = 4
MOST_SECONDS = 0.1


def beside_hostile_guests(count: int) -> tuple[Row, list[Figure]]:
    """A call of somebody else's while calls to such guests are under way, beside the same call on the same server while
    none are."""
    with hostile_server() as server:
        caller = Caller(server)
        quiet = _answers(caller, count)
        with _attacked(caller):
            beside = _answers(caller, count)
        caller.leave()
        row = told_row("GetVm beside hostile guests", beside, "the same without them", quiet)
        slowest = max(beside.seconds) * 1000
        return row, [Figure("slowest call beside hostile guests", slowest, "ms", MOST_SECONDS * 1000)]


def _answers(caller: Caller, count: int) -> Sample:
    caller.another_is_answered()
    caller.others.clear()
    for _ in range(count):
        caller.another_is_answered()
    return Sample(tuple(caller.others))


@contextmanager
def _attacked(caller: Caller) -> Iterator[None]:
    """All attacks in turn, several at a time, again and again."""
    pairs = [(name, attack) for attack in attacks() for name, case in CASES.items() if applies(attack, case)]
    turns, turn, over = itertools.cycle(pairs), threading.Lock(), threading.Event()

    def go_on() -> None:
        while not over.is_set():
            with turn:
                name, attack = next(turns)
            caller.outcome(name, attack)

    with ThreadPoolExecutor(AT_A_TIME) as threads:
        going = [threads.submit(go_on) for _ in range(AT_A_TIME)]
        try:
            yield
        finally:
            over.set()
    for each in going:
        each.result()

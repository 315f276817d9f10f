"""All of a change, or none of it.

A change is decided on the journal's state alone, checked, journalled, and only then made. One that fails is taken back
in the kernel and in the journal. A helper that is killed anywhere in between settles, when it starts again, for the
state that its journal ends with.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper.capabilities import held, listed
from ingle.host_helper.chown import chown
from ingle.host_helper.errors import HelperError
from ingle.host_helper.journal import Journal
from ingle.host_helper.names import LOOSE, Addresses, network_of
from ingle.host_helper.part import Part
from ingle.host_helper.policy import Policy
from ingle.host_helper.state import Device, Network, Resource, State, Tap
from ingle.host_helper.verbs import Chown, Verb

log = logging.getLogger(__name__)

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Difference(NamedTuple):
    """What a Reconcile has added and removed."""

    added: list[Resource]
    removed: list[Resource]


def _in_turn(
    method: "Callable[Concatenate[Core, _Parameters], _Result]",
) -> "Callable[Concatenate[Core, _Parameters], _Result]":
    """One call of these at a time: they never meet in the journal or in the kernel."""

    @wraps(method)
    def taken(core: "Core", /, *arguments: _Parameters.args, **named: _Parameters.kwargs) -> _Result:
        with core.turn:
            return method(core, *arguments, **named)

    return taken


class Core:
    """Policy, journal and kernel together. Calls by several threads take turns, but for `find_overlaps`."""

    def __init__(self, policy: Policy, journal: Journal, part: Part, later: Callable[[], None]) -> None:
        """`later` has `tidy` called a moment from now."""
        self._policy = policy
        self._journal = journal
        self._part = part
        self._later = later
        self.turn = threading.Lock()

    @_in_turn
    def recover(self) -> None:
        """Finish what an earlier process was killed in, and give up what today's policy has no place for.

        What fails is logged, and a Reconcile can make good."""
        networks = Addresses.of(self._policy).networks
        self._journal.change(State(each for each in self._journal.state if _network(each) < networks))
        with suppress(HelperError):
            self._part.settle(self._journal.state)

    @_in_turn
    def apply(self, verbs: Sequence[Verb]) -> pb.ApplyResponse:
        """Do them in their order. Raises HelperError, and then none of them is done."""
        old = new = self._journal.state
        named: list[Resource] = []
        for verb in verbs:
            new = verb.edit(new, self._policy)
            named += verb.named(new)
        named = [each for each in dict.fromkeys(named) if each in new]  # a later verb may have removed it again
        self._part.check(old, new)
        self._journal.change(new)
        try:
            self._part.change(old, new, named)
            self._chown([verb for verb in verbs if isinstance(verb, Chown)])
        except BaseException:
            self._take_back(old, new)
            raise
        finally:
            if self._part.untidy:
                self._later()
        return self._part.describe(named, new)

    @_in_turn
    def reconcile(self, wanted: State) -> Difference:
        """Make `wanted` all there is. Raises the first HelperError in the end; what could be done is done."""
        old = self._journal.state
        self._part.check(old, wanted)
        self._journal.change(wanted)
        self._part.settle(wanted)
        return Difference(wanted.beyond(old), old.beyond(wanted))

    @_in_turn
    def tidy(self) -> None:
        """What `later` is for. A failure is logged, and tried again the next time."""
        try:
            self._part.tidy()
        except HelperError as error:
            log.error("not tidied: %s", error.message)

    @_in_turn
    def examine(self) -> pb.ExamineResponse:
        """How much of what the policy allows is taken, what of others is in the way, and what this process may."""
        found = self._part.examine(self._journal.state)
        found.capabilities.extend(listed(held().effective))
        return found

    def find_overlaps(self) -> Sequence[pb.Overlap]:
        """What of the host overlaps addresses of the policy's. Nobody waits for it."""
        return self._part.find_overlaps()

    @_in_turn
    def list(self) -> pb.ListResponse:
        """Everything that is journalled."""
        return self._part.list(self._journal.state)

    def _chown(self, verbs: Iterable[Chown]) -> None:
        done: list[tuple[Chown, int]] = []
        try:
            for verb in verbs:
                owner = chown(self._policy, verb.vm, verb.file, verb.uid)
                done.append((verb, owner))
        except BaseException:
            for verb, owner in reversed(done):
                try:
                    chown(self._policy, verb.vm, verb.file, owner)
                except HelperError as error:
                    log.error("not taken back: %s", error.message)
            raise

    def _take_back(self, old: State, new: State) -> None:
        self._journal.change(old)
        try:
            self._part.change(new, old, ())
        except HelperError as error:
            log.error("not taken back, a Reconcile is needed: %s", error.message)


def _network(resource: Resource) -> int:
    """The network it is in; the first for what is in none."""
    match resource:
        case Network(number):
            return number
        case Device():
            return 0
        case Tap(slot) if slot in LOOSE:
            return 0
    return network_of(resource.slot)

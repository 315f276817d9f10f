"""What a helper process serves: the network or devices. The service knows no more of either than this."""

from collections.abc import Callable, Sequence
from typing import Protocol

from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper.state import Resource, State


class Part(Protocol):
    """Takes the kernel from one state to the next. Called by one thread at a time."""

    number: "pb.Part.ValueType"

    def check(self, old: State, new: State) -> None:
        """Raise HelperError when the host can't do what `new` has and `old` has not. Changes nothing."""

    def change(self, old: State, new: State, named: Sequence[Resource]) -> None:
        """From `old` to `new`; `named` are there afterwards even if they were in `old`.

        Raises HelperError, and then anything in between may be there."""

    def settle(self, state: State) -> None:
        """Make the kernel agree with `state`, whatever is there now. One failure doesn't stop the rest.

        Raises the first HelperError in the end."""

    def describe(self, named: Sequence[Resource], state: State) -> pb.ApplyResponse:
        """What a call gets to know about the resources it named."""

    def examine(self, state: State) -> pb.ExamineResponse:
        """What there is room for, and who is in the way. Raises HelperError."""

    def find_overlaps(self) -> Sequence[pb.Overlap]:
        """What of the host overlaps addresses that are ours to give. Called by any thread, beside all the others; takes
        a second. Raises HelperError."""

    def list(self, state: State) -> pb.ListResponse:
        """Everything in `state`, and whether the kernel has it."""

    def watch(self, changed: Callable[[], None]) -> None:
        """From now on call `changed`, from any thread, when `tidy` is due because of what others have done."""

    @property
    def untidy(self) -> bool:
        """Whether something was put off, because it would have made a call wait."""

    def tidy(self) -> None:
        """Do what was put off."""

    def close(self) -> None:
        """Before the process ends. What `settle` would make stays."""

"""One change to many things: each reference resolved once, duplicates dropped, all at the same time, each reported."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from ingle.cli.client import Call
from ingle.cli.errors import CliError, Failure
from ingle.cli.jsonable import Json, to_json
from ingle.cli.output import print_json, say, tell
from ingle.cli.printable import one_line
from ingle.cli.stages import Stages

_Found = TypeVar("_Found", bound=Message)
_Done = TypeVar("_Done", bound=Message)


def change_each(
    references: Sequence[str],
    find: Callable[[str], Call[_Found]],
    id_of: Callable[[_Found], str],
    change: Callable[[str], Call[_Done]],
    doing: str,
    *,
    json: bool,
    note: Callable[[_Done], str] = lambda response: "",
) -> None:
    """`find` begins the look-up of a reference and `id_of` takes the id from its answer; `change` begins the change of
    an id. `doing` is what a person reads meanwhile, `note` what it should know of one that has worked.

    Prints the references that it worked for, in their order as soon as each is done; with `json` a list of
    {"reference": ..., and the fields of the response}. Raises CliError with all failures once all was tried."""
    failures: list[Failure] = []
    reference_of_id: dict[str, str] = {}
    for reference, lookup in [(reference, find(reference)) for reference in dict.fromkeys(references)]:
        try:
            reference_of_id.setdefault(id_of(lookup.result()), reference)
        except CliError as error:
            failures.append(error.about(reference))

    change_known(reference_of_id, change, doing, json=json, failures=failures, note=note)


def change_known(
    reference_of_id: Mapping[str, str],
    change: Callable[[str], Call[_Done]],
    doing: str,
    *,
    json: bool,
    failures: Sequence[Failure] = (),
    note: Callable[[_Done], str] = lambda response: "",
) -> None:
    """The same for what was looked up already: its name may be another's by now, its id never. `failures`: of that."""
    failed = list(failures)
    done: list[Json] = []
    for reference, call in [(reference, change(item_id)) for item_id, reference in reference_of_id.items()]:
        try:
            with Stages(lines=False) as stages:
                stages.under_way(f"{doing} {reference}")
                response = call.result()
        except CliError as error:
            failed.append(error.about(reference))
        else:
            done.append({"reference": reference, **to_json(response)})
            if not json:
                say(reference)
            if said := note(response):
                tell(one_line(f"{reference}: {said}"))
    if json:
        print_json(done)
    if failed:
        raise CliError(*failed)

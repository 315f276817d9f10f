"""What a list shows, and how: the options that all lists share, and that those of one thing share with them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer
from google.protobuf.message import Message

from ingle.cli import waiting
from ingle.cli.errors import CliError
from ingle.cli.jsonable import Json, Shape, enum_name, shape_of, to_json
from ingle.cli.options import AsJson
from ingle.cli.output import print_json, print_json_line, say, table
from ingle.cli.printable import one_line

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor

    from ingle.cli.templates import Template

_Item = TypeVar("_Item", bound=Message)
_Request = TypeVar("_Request", bound=Message)

_TABLE, _JSON, _JSON_LINES = "table", "json", "jsonl"
_FORMAT_HINT = "'--format'"
_FILTER_HINT = "'--filter' / '-f'"
_SHORT_ID = 12


def _choose_format(context: typer.Context, wanted: str) -> str:
    if wanted in {_JSON, _JSON_LINES}:
        context.find_root().obj.json = True
        waiting.keep_silent()
    return wanted


FORMAT_METAVAR = "json|jsonl|table|TEMPLATE"
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar=FORMAT_METAVAR,
        help="How to print it; jsonl: a line each; e.g. '{{.name}}', '{{json .}}', 'table {{.name}}\\t{{.id}}'.",
        callback=_choose_format,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Names only, or ids of what has none.")]
NoTrunc = Annotated[bool, typer.Option("--no-trunc", help="Ids as a whole.")]
AllUsers = Annotated[bool, typer.Option("--all-users", help="Everybody's: for root and members of ingle-admin.")]
Filters = Annotated[
    list[str],
    typer.Option("--filter", "-f", metavar="KEY=VALUE", help="Only those (repeatable); * stands for anything."),
]


@dataclass(frozen=True, slots=True)
class ListOptions:
    """As they were given; see `spread`."""

    filter: Filters = field(default_factory=list)
    format: Format = ""
    quiet: Quiet = False
    no_trunc: NoTrunc = False
    json: AsJson = False


@dataclass(frozen=True)
class Filter:
    """`values`: what an item has of a key. `among`: all that there can be, where that is known, and the number that it
    has in the contract. `ask`: the server filters, and this field of the request takes what is wanted."""

    values: Callable[[Any], Iterable[str]] = lambda _: ()
    among: Mapping[str, int] = field(default_factory=dict)
    ask: str = ""


@dataclass(frozen=True)
class Column(Generic[_Item]):
    """`cell` is its text for an item; of an id, which `no_trunc` shows as a whole, it is all of it."""

    heading: str
    cell: Callable[[_Item], str]
    is_id: bool = False

    def text(self, item: _Item, *, no_trunc: bool) -> str:
        """As the table has it."""
        text = self.cell(item)
        return text[:_SHORT_ID] if self.is_id and not no_trunc else text


@dataclass(frozen=True)
class Listing(Generic[_Item]):
    """A list of one kind of thing: of what message, its columns, what it is called, and what it can be filtered by."""

    message: type[_Item]
    columns: Sequence[Column[_Item]]
    name: Callable[[_Item], str]
    filters: Mapping[str, Filter] = field(default_factory=dict)
    as_json: Callable[[_Item], Json] = to_json

    def chosen(self, options: ListOptions) -> "Chosen[_Item]":
        """What the options make of it. Raises a usage error, before a server is asked."""
        how = "table"
        if options.json:
            how = _JSON
        if options.format:
            if options.json and options.format != _JSON:
                raise typer.BadParameter("it does not go with --json", param_hint=_FORMAT_HINT)
            how = options.format
        if options.quiet and (options.json or options.format):
            other = "--json" if options.json else "--format"
            raise typer.BadParameter(f"it does not go with {other}, which has all of it", param_hint="'--quiet' / '-q'")
        return Chosen(
            self, options, Formatted(how, lambda: shape_of(self.message.DESCRIPTOR)), self._wanted(options.filter)
        )

    def _wanted(self, filters: Sequence[str]) -> Mapping[str, Sequence[str]]:
        wanted: dict[str, list[str]] = {}
        for text in filters:
            key, equals, value = text.partition("=")
            if key not in self.filters or not equals:
                allowed = ", ".join(f"{key}=" for key in self.filters)
                raise typer.BadParameter(f"{text!r}: give one of {allowed} with a value", param_hint=_FILTER_HINT)
            among = self.filters[key].among
            if among and value not in among:
                raise typer.BadParameter(f"{text!r}: {key} is one of {', '.join(among)}", param_hint=_FILTER_HINT)
            wanted.setdefault(key, []).append(value)
        return wanted


@dataclass(frozen=True)
class Chosen(Generic[_Item]):
    """A list as it was asked for."""

    listing: Listing[_Item]
    options: ListOptions
    formatted: "Formatted"
    wanted: Mapping[str, Sequence[str]]

    def asking(self, request: _Request) -> _Request:
        """The request for the list, with what the server is to filter by."""
        for key, values in self.wanted.items():
            rule = self.listing.filters[key]
            if rule.ask:
                getattr(request, rule.ask).extend(rule.among.get(value, value) for value in values)
        return request

    @property
    def as_json(self) -> bool:
        """Whether all of it is shown, as JSON: with what is beside the list."""
        return self.options.json or self.options.format == _JSON

    @property
    def as_table(self) -> bool:
        """Whether it is the list's own table that is shown."""
        return self.formatted.is_table and not self.options.quiet

    def show(self, items: Iterable[_Item]) -> None:
        """Print those of the items that are wanted."""
        found = list(self.wanted_of(items))
        if self.options.quiet:
            for item in found:
                say(one_line(self.listing.name(item)))
        elif self.formatted.is_table:
            say(self._table(found))
        else:
            self.formatted.show([self.listing.as_json(item) for item in found])

    def wanted_of(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Those that the filters leave."""
        return (item for item in items if self._is_wanted(item))

    def _table(self, items: Sequence[_Item]) -> str:
        columns = self.listing.columns
        rows = ([column.text(item, no_trunc=self.options.no_trunc) for column in columns] for item in items)
        return table([column.heading for column in columns], rows)

    def _is_wanted(self, item: _Item) -> bool:
        """Of the values of one key any will do, as docker has it; every key has to."""
        filters = self.listing.filters
        return all(
            any(_matches(has, value) for value in values for has in filters[key].values(item))
            for key, values in self.wanted.items()
            if not filters[key].ask
        )


class Formatted:
    """What --format makes of things of one shape, but for the table that a list has of itself."""

    def __init__(self, wanted: str, shape: Callable[[], Shape]) -> None:
        """Raises a usage error for a template that makes no sense."""
        self._wanted = wanted
        self.is_table = wanted == _TABLE
        self.is_json = wanted in {_JSON, _JSON_LINES}
        self._as_table = wanted.startswith(f"{_TABLE} ")
        self._template: Template | None = None
        if wanted not in {_TABLE, _JSON, _JSON_LINES}:
            self._template = _parsed(wanted.removeprefix(f"{_TABLE} "), shape())

    def show_one(self, item: Json) -> None:
        """Print the only one, which as JSON is no list."""
        if self._wanted == _JSON:
            print_json(item)
        else:
            self.show([item])

    def show_each(self, references: Sequence[str], get: Callable[[str], Json]) -> None:
        """Print all that can be had. Raises CliError with what went wrong with the others."""
        items, failures = [], []
        for reference in dict.fromkeys(references):
            try:
                items.append(get(reference))
            except CliError as error:
                failures.append(error.about(reference))
        self.show(items)
        if failures:
            raise CliError(*failures)

    def show(self, items: Sequence[Json]) -> None:
        """Print them all."""
        if self._template is not None and self._as_table:
            say(table(self._template.headings(), map(self._template.cells, items)))
        elif self._template is not None:
            for item in items:
                say(self._template.render(item))
        elif self._wanted == _JSON_LINES:
            for item in items:
                print_json_line(item)
        else:
            print_json(list(items))


def formatted_one(wanted: str, shape: Callable[[], Shape], *, json: bool) -> Formatted | None:
    """How one thing is shown; None for what the command has for people."""
    if (not wanted and not json) or wanted == _TABLE:
        return None
    return Formatted(wanted or _JSON, shape)


def formatted_all(wanted: str, shape: Callable[[], Shape], *, json: bool) -> Formatted | None:
    """How several things are shown; None for what the command has for people."""
    if json and wanted not in {"", _JSON}:
        raise typer.BadParameter("it does not go with --json", param_hint=_FORMAT_HINT)
    return formatted_one(wanted, shape, json=json)


def formatted_each(wanted: str, shape: Callable[[], Shape], *, json: bool) -> Formatted | None:
    """How things are shown that come one by one, each as soon as it is there; None for what the command has for people.
    Raises a usage error for a table, whose columns would be as wide as nobody knows yet."""
    if json and wanted not in {"", _JSON, _JSON_LINES}:
        raise typer.BadParameter("it does not go with --json", param_hint=_FORMAT_HINT)
    if wanted.startswith(f"{_TABLE} "):
        raise typer.BadParameter("one comes after the other: give a template without table", param_hint=_FORMAT_HINT)
    if json or wanted == _JSON:
        wanted = _JSON_LINES
    return None if wanted in {"", _TABLE} else Formatted(wanted, shape)


def enum_numbers(enum: "EnumDescriptor") -> dict[str, int]:
    """What --filter takes for an enum."""
    return {enum_name(enum, value.number): value.number for value in enum.values if value.number}


def _parsed(template: str, shape: Shape) -> "Template":
    from ingle.cli.templates import parse  # noqa: PLC0415 - hardly ever

    if "{{" not in template:
        raise typer.BadParameter(
            f"{template!r}: give table, json, jsonl or a template such as '{{{{.name}}}}'", param_hint=_FORMAT_HINT
        )
    try:
        return parse(template, shape)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=_FORMAT_HINT) from error


def _matches(text: str, pattern: str) -> bool:
    if "*" not in pattern:
        return text == pattern
    import re  # noqa: PLC0415

    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None

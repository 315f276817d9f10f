r"""Templates of --format: the small part of Go's that docker's users type.

    text                  itself; \t and \n are a tab and a new line
    {{.name}} {{.a.b}}    a field, and one in it, as in --json; case and '_' don't count: .CreatedAt is .created_at
    {{.}} {{json .a}}     all of it, or a field, as JSON
    {{len .a}}            how many things or letters it has
    {{join .a ", "}}      what is in a list, with that in between
    {{index .a "key"}}    the value of a key, or of a number in a list
    {{upper .a}} {{lower .a}}

What is not set is nothing, true and false are those words, a list or an object is JSON. A field that is not there is
refused before anything is asked of a server.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from ingle.cli.jsonable import ANY_KEY, LIST, VALUE, Json, Shape
from ingle.cli.printable import escaped

_ACTION = re.compile(r'\{\{((?:[^{}"]|"(?:[^"\\]|\\.)*")*)\}\}')
_WORD = re.compile(
    r'\s*(?:(?P<path>\.[^\s"]*)|(?P<text>"(?:[^"\\]|\\.)*")|(?P<number>[0-9]+)|(?P<name>[a-z]+))(?=\s|$)'
)
_ESCAPES = {"\\t": "\t", "\\n": "\n", "\\\\": "\\", '\\"': '"'}

Argument = str | int


def _text(value: Json) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
    return _as_json(value)


def _as_json(value: Json) -> str:
    import json  # noqa: PLC0415 - not loaded for names

    return escaped(json.dumps(value, ensure_ascii=False))


def _join(value: Json, separator: Argument) -> str:
    items = value if isinstance(value, list) else [] if value is None else [value]
    return str(separator).join(map(_text, items))


def _index(value: Json, key: Argument) -> Json:
    if isinstance(value, dict):
        return value.get(str(key))
    if isinstance(value, list) and isinstance(key, int) and key < len(value):
        return value[key]
    return None


def _length(value: Json) -> Json:
    return len(value) if isinstance(value, str | list | dict) else 0


_OF_ONE: Mapping[str, Callable[[Json], Json]] = {
    "json": _as_json,
    "len": _length,
    "lower": lambda value: _text(value).lower(),
    "upper": lambda value: _text(value).upper(),
}
_OF_TWO: Mapping[str, Callable[[Json, Argument], Json]] = {"index": _index, "join": _join}


@dataclass(frozen=True)
class Action:
    """What is between braces: a field's path, and what is made of its value."""

    path: Sequence[str]
    function: Callable[[Json], Json] | None = None

    def text(self, item: Json) -> str:
        """What it stands for in one item."""
        for name in self.path:
            item = item.get(name) if isinstance(item, dict) else None
        return _text(item if self.function is None else self.function(item))

    @property
    def heading(self) -> str:
        """Of its column."""
        return self.path[-1].replace("_", " ").upper() if self.path else "ALL"


@dataclass(frozen=True)
class Template:
    """Text and actions, in their order."""

    parts: Sequence[str | Action]

    def render(self, item: Json) -> str:
        """The text for one item."""
        return "".join(part if isinstance(part, str) else part.text(item) for part in self.parts)

    def cells(self, item: Json) -> list[str]:
        """What stands between the template's own tabs."""
        return [column.render(item) for column in self._columns()]

    def headings(self) -> list[str]:
        """Of each of those: the template's text, with names in place of values."""
        return [
            "".join(part if isinstance(part, str) else part.heading for part in column.parts).strip()
            for column in self._columns()
        ]

    def _columns(self) -> "list[Template]":
        columns: list[list[str | Action]] = [[]]
        for part in self.parts:
            first, *others = part.split("\t") if isinstance(part, str) else [part]
            columns[-1].append(first)
            columns += [[other] for other in others]
        return [Template(column) for column in columns]


def parse(template: str, shape: Shape) -> Template:
    """Read it; `shape` is that of the items. Raises ValueError, which says what is allowed."""
    parts: list[str | Action] = []
    end = 0
    for found in _ACTION.finditer(template):
        parts += [_plain(template[end : found.start()]), _action(found[1], shape)]
        end = found.end()
    return Template([*parts, _plain(template[end:])])


def _plain(text: str) -> str:
    if "{{" in text or "}}" in text:
        raise ValueError(f"{text!r}: braces that are not closed, as in {{{{.name}}}}")
    return _unescaped(text)


def _unescaped(text: str) -> str:
    return re.sub(r"\\.", lambda found: _ESCAPES.get(found[0], found[0]), text)


def _action(source: str, shape: Shape) -> Action:
    words = _words(source)
    match words:
        case [("path", path)]:
            return Action(_resolved(path, shape))
        case [("name", name), ("path", path)] if name in _OF_ONE:
            return Action(_resolved(path, shape), _OF_ONE[name])
        case [("name", name), ("path", path), ("text" | "number" as kind, argument)] if name in _OF_TWO:
            function = _OF_TWO[name]
            given: Argument = int(argument) if kind == "number" else _unescaped(argument[1:-1])
            return Action(_resolved(path, shape), lambda value: function(value, given))
    raise ValueError(
        f"{{{{{source}}}}}: give {{{{.FIELD}}}}, or {', '.join([*_OF_ONE, *_OF_TWO])} and a field, "
        'e.g. {{json .}} or {{join .names ", "}}'
    )


def _words(source: str) -> list[tuple[str, str]]:
    words, end = [], 0
    while source[end:].strip():
        found = _WORD.match(source, end)
        if found is None:
            return []
        kind = cast("str", found.lastgroup)
        words.append((kind, found[kind]))
        end = found.end()
    return words


def _resolved(path: str, shape: Shape) -> list[str]:
    """The names of fields as they are spelled in JSON."""
    names = [] if path == "." else path[1:].split(".")
    spelled: list[str] = []
    for name in names:
        if isinstance(shape, Mapping):
            known = {_folded(field): field for field in shape}
            if _folded(name) not in known:
                where = f"of .{'.'.join(spelled)}" if spelled else "of it"
                raise ValueError(f"there is no .{name}; the fields {where}: {', '.join(shape)}")
            spelled.append(known[_folded(name)])
            shape = shape[spelled[-1]]
        elif shape == ANY_KEY:
            spelled.append(name)
            shape = VALUE
        else:
            what = "a list: give json, join, len or index" if shape == LIST else "a value, and has no fields"
            raise ValueError(f".{'.'.join(spelled)} is {what}")
    return spelled


def _folded(name: str) -> str:
    return name.replace("_", "").lower()

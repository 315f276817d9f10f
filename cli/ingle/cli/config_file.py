"""The server's configuration file, as a person keeps it: comments, order and blank lines stay when a value changes.

It is TOML, and its settings stand before its first table: what is not a line of its own for each of them (a string of
several lines, say), and all that is in tables, is left to an editor. What a key means is for the server to say."""

import errno
import fcntl
import json
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

from ingle.cli.errors import failed

_ASSIGNMENT = re.compile(
    r"""^(?P<before>\s*["']?(?P<key>[A-Za-z0-9_-]+)["']?\s*=\s*)
    (?P<value>"(?:[^"\\]|\\.)*"|'[^']*'|[^\s#"'\[{][^\s#]*)
    (?P<after>\s*(?:\#.*)?)$""",
    re.VERBOSE,
)
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_MODE = 0o644


def read(path: Path) -> str:
    """Its text; nothing when there is no file. Raises CliError for what is no text, or no file that ends, OSError."""
    try:
        with open(path, encoding="utf-8", newline="", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise failed("INVALID_ARGUMENT", f"{path} is no regular file", f"move {path} away")
            return file.read()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise failed("INVALID_ARGUMENT", f"{path} is not UTF-8", "ingle config edit") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def changed(text: str, changes: Mapping[str, str | None], path: Path) -> str:
    """The text with other values, None for a key that is to go. New keys come behind the others. Raises CliError when
    that can't be done with certainty."""
    former = _values(text, path)
    if others := [key for key in changes if not _KEY.fullmatch(key)]:
        raise failed(
            "INVALID_ARGUMENT", f"{others[0]!r} is no setting by itself; an editor changes tables", "ingle config edit"
        )
    lines = text.splitlines(keepends=True)
    tables = next((at for at, line in enumerate(lines) if line.lstrip().startswith("[")), len(lines))
    left = dict(changes)
    kept: list[str] = []
    new_at = 0 if tables < len(lines) else None
    for line in lines[:tables]:
        found = _ASSIGNMENT.match(line.rstrip("\r\n"))
        if found is None or found["key"] not in changes:
            kept.append(line)
        elif (value := left.pop(found["key"], None)) is not None:
            end = line[len(line.rstrip("\r\n")) :]
            kept.append(f"{found['before']}{_written(value)}{found['after']}{end}")
        if found is not None and new_at is not None:
            new_at = len(kept)
    new = [f"{key} = {_written(value)}\n" for key, value in left.items() if value is not None]
    if new and new_at is None and kept and not kept[-1].endswith("\n"):
        kept[-1] += "\n"
    at = len(kept) if new_at is None else new_at
    result = "".join([*kept[:at], *new, *kept[at:], *lines[tables:]])
    if not _says(result, {**former, **{key: _value(value) for key, value in changes.items()}}):
        raise failed("INVALID_ARGUMENT", f"{path} is not as simple as this command needs it", "ingle config edit")
    return result


class ChangedMeanwhile(Exception):
    """The file has another text by now."""


def replace(path: Path, text: str, former: str) -> None:
    """Put the text in the file's place, whole or not at all; where it is a link, in the place of what that leads to.
    Mode and owner stay; a file that this user may not write is not replaced either. Raises OSError, and
    ChangedMeanwhile unless the file has the text that it had."""
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # of two of us, one looks behind the other
        if path.exists() and not os.access(path, os.W_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, "it is read-only", str(path))
        if read(path) != former:
            raise ChangedMeanwhile
        _replace(path, text)
        os.fsync(directory)
    finally:
        os.close(directory)


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            _take_after(path, file.fileno())
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _take_after(path: Path, descriptor: int) -> None:
    try:
        former = path.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, _MODE)
        return
    os.fchmod(descriptor, stat.S_IMODE(former.st_mode))
    if former.st_uid != os.geteuid() or former.st_gid != os.getegid():
        os.fchown(descriptor, former.st_uid, former.st_gid)


def _values(text: str, path: Path) -> dict[str, object]:
    """Raises CliError."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise failed("INVALID_ARGUMENT", f"{path}: {error}", "ingle config edit") from None


def _says(text: str, wanted: Mapping[str, object]) -> bool:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return values == {key: value for key, value in wanted.items() if value is not None}


def _value(value: object) -> object:
    return int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _written(value: str) -> str:
    """A TOML basic string, whose escapes are those of JSON; a number as it is."""
    return value if _NUMBER.fullmatch(value) else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

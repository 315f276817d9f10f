"""The manual page, made of the help of all commands: man(7), which man, mandoc and groff read."""

import inspect
import os
import re
import time
from collections.abc import Iterator
from typing import Any, cast

import typer
from typer.core import TyperGroup
from typer.main import get_command

from ingle.cli.app import app

_FOREWORD = """
.SH DESCRIPTION
ingle runs disposable and long\\-lived microVMs, each with a kernel of its own.
Its commands talk to a server, which runs as you and starts when it is first needed, or which a system install runs for
the members of a group.
"""

_AFTERWORD = """
.SH EXIT STATUS
Of commands that run one in a guest, that one's; else 0 when all went well. Of ingle's own:
.TP
.B 1
it has failed
.TP
.B 2
wrong usage
.TP
.B 124
timed out
.TP
.B 125
ingle failed where a guest's command was to run
.TP
.BR 126 ", " 127
that command can't be executed, or is not there
.TP
.BI 128+ N
ended by signal N: 130 is Ctrl\\-C
.SH ENVIRONMENT
.TP
.B INGLE_SOCKET
another server's socket; none is started then
.TP
.B INGLE_MODE
user or system: whose server is asked, where there are both
.TP
.BI INGLE_ KEY
read by a server when it starts; overrules
.I KEY
of its configuration file
.SH FILES
.TP
.I $XDG_CONFIG_HOME/ingle/config.toml
the configuration; of a system install
.I /etc/ingle/config.toml
.TP
.I $XDG_STATE_HOME/ingle
database, images, kernels, disks and logs; of a system install
.I /var/lib/ingle
.TP
.I $XDG_CACHE_HOME/ingle
what may be deleted while nothing runs; of a system install
.I /var/cache/ingle
.SH SEE ALSO
.BR qemu\\-system\\-x86_64 (1),
.BR systemd (1)
"""


def page(version: str) -> str:
    """All of it. Dated by SOURCE_DATE_EPOCH, or today."""
    root = cast("TyperGroup", get_command(app))
    when = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())))
    parts = [
        f'.TH INGLE 1 "{when}" "ingle {_escaped(version)}" "User Commands"',
        f".SH NAME\ningle \\- {_escaped(_first_sentence(root))}",
        ".SH SYNOPSIS\n.B ingle\n.I COMMAND\n.RI [ OPTION ]...\n.RI [ ARGUMENT ]...",
        _FOREWORD.strip(),
        ".SH COMMANDS",
    ]
    seen: dict[Any, str] = {}
    for path, command in _commands(root, ("ingle",)):
        same = path if isinstance(command, TyperGroup) else seen.setdefault(inspect.unwrap(command.callback), path)
        parts += _command(path, command, same)
    parts += [".SH EXAMPLES", *_examples(root), _AFTERWORD.strip()]
    return "\n".join(parts) + "\n"


def _commands(group: TyperGroup, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Those of groups first: what is short for one of them follows."""
    children = [(name, group.commands[name]) for name in group.commands]
    for name, child in sorted(children, key=lambda pair: not isinstance(pair[1], TyperGroup)):
        if child.hidden:
            continue
        if isinstance(child, TyperGroup):
            yield " ".join((*path, name)), child
            yield from _commands(child, (*path, name))
        else:
            yield " ".join((*path, name)), child


def _command(path: str, command: Any, same: str) -> Iterator[str]:
    context = typer.Context(command, info_name=path)
    yield f".SS {_escaped(path)}"
    if same != path:
        yield f"Short for {_bold(same)}."
        return
    paragraphs = [" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n")]
    yield "\n.PP\n".join(_line(paragraph) for paragraph in paragraphs if paragraph)
    if isinstance(command, TyperGroup):
        return
    yield f".PP\n{_bold(path)} {_escaped(' '.join(command.collect_usage_pieces(context)))}"
    for parameter in command.get_params(context):
        record = None if parameter.name == "help" else parameter.get_help_record(context)
        if record is not None:
            yield f".TP\n{_bold(record[0])}\n{_line(' '.join(record[1].split()) or '-')}"
    if examples := list(_examples(command)):
        yield ".PP"
        yield from examples


def _examples(command: Any) -> Iterator[str]:
    lines = (command.epilog or "").partition("Examples:\n")[2].splitlines()
    if lines:
        yield ".RS 4\n.nf"
        yield from (_line(line.strip()) for line in lines)
        yield ".fi\n.RE"


def _first_sentence(command: Any) -> str:
    text: str = command.get_short_help_str(limit=200)
    return text[:1].lower() + text[1:].rstrip(".")


def _bold(text: str) -> str:
    return f"\\fB{_escaped(text)}\\fR"


def _line(text: str) -> str:
    """A line of text, which a dot or an apostrophe in front would make a request."""
    return re.sub(r"^(?=[.'])", r"\\&", _escaped(text))


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return text.replace("^", "\\(ha").replace("~", "\\(ti").replace("`", "\\(ga").replace("…", "...")

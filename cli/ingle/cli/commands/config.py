"""`ingle config`: what the server uses where a command says nothing, and the file that says it."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ingle.cli import config_file, configuring, paths
from ingle.cli.client import connect
from ingle.cli.errors import CliError, failed
from ingle.cli.jsonable import to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.listing import Column, Filter, Listing, ListOptions
from ingle.cli.options import AsJson
from ingle.cli.output import is_terminal, print_json, say, tell, tell_failure
from ingle.cli.settings import asked
from ingle.cli.spread import spread
from ingle.v1 import system_pb2

app = new_app(
    "What the server uses where a command says nothing, and the file that says it.",
    first=("ingle config show", "ingle config set memory_bytes 2G", "ingle config edit"),
)

Key = Annotated[str, typer.Argument(metavar="KEY", help="See ingle config show.", show_default=False)]

_SETTINGS = Listing(
    message=system_pb2.Setting,
    columns=(
        Column("SETTING", lambda setting: setting.name),
        Column("VALUE", lambda setting: setting.value),
        Column("FROM", lambda setting: setting.origin),
    ),
    name=lambda setting: setting.name,
    filters={
        "name": Filter(lambda setting: [setting.name]),
        "origin": Filter(lambda setting: [setting.origin]),
    },
)


@app.command(epilog=examples("ingle config show", "ingle config show --filter origin=built-in"))
@spread(ListOptions)
def show(options: ListOptions) -> None:
    """All settings as the server uses them, and where each value is from.

    Filters: name, origin. What the file or your environment says and the server does not use is told on stderr."""
    chosen = _SETTINGS.chosen(options)
    with connect() as client:
        answer = asked(client)
    chosen.show(answer.settings)
    for difference in answer.differences:
        tell(f"warning: {difference}")


@app.command(epilog=examples("ingle config get memory_bytes", "ingle config get --json memory_bytes"))
def get(key: Key, json: AsJson = False) -> None:
    """The value of one setting, as the server uses it; as JSON with where it is from."""
    with connect() as client:
        settings = {setting.name: setting for setting in asked(client).settings}
    if key not in settings:
        raise typer.BadParameter(f"there is no setting {key!r}: {', '.join(settings)}", param_hint="'KEY'")
    if json:
        print_json(to_json(settings[key]))
    else:
        say(settings[key].value)


@app.command(
    name="set", epilog=examples("ingle config set memory_bytes 2G", "sudo ingle config set image debian:trixie")
)
def set_value(
    key: Key, value: Annotated[str, typer.Argument(metavar="VALUE", help="E.g. 2, 4G or debian:trixie.")]
) -> None:
    """Write a value into the configuration file, which keeps its comments.

    A value that the server would refuse is not written. VMs that are there keep what they have."""
    configuring.change({key: value})


@app.command(epilog=examples("ingle config unset memory_bytes"))
def unset(keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="See ingle config show.")]) -> None:
    """Take values out of the configuration file: the server's own hold again."""
    configuring.change(dict.fromkeys(keys))


@app.command(epilog=examples("ingle config edit", "EDITOR=nano ingle config edit"))
def edit() -> None:
    """Change the configuration file in $VISUAL, or $EDITOR; what the server would refuse is not kept."""
    path = paths.config_file()
    former = config_file.read(path)
    with tempfile.TemporaryDirectory(prefix="ingle-config-") as directory:
        draft = Path(directory) / path.name
        draft.write_text(former, encoding="utf-8")
        while True:
            _let_edit(draft)
            text = config_file.read(draft)
            if text == former:
                tell("nothing was changed")
                return
            try:
                configuring.check(text, path)
                configuring.write(path, text, former)
                break
            except config_file.ChangedMeanwhile:
                raise _changed_meanwhile(path, text) from None
            except CliError as error:
                if not is_terminal(sys.stdin):
                    raise
                tell_failure(error.failures[0], as_json=False)
            typer.confirm("Edit it again?", abort=True, default=True, err=True)
    configuring.tell_written(path)


def _let_edit(draft: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        ended = subprocess.run([*(shlex.split(editor) or ["vi"]), draft], check=False)
    except (OSError, ValueError) as error:
        raise failed("INVALID_ARGUMENT", f"{editor!r} can't be started: {error}", "set EDITOR") from error
    if ended.returncode != 0:
        raise failed("INVALID_ARGUMENT", f"{editor} ended with {ended.returncode}: nothing was changed")


def _changed_meanwhile(path: Path, text: str) -> CliError:
    """Nobody's work is lost: neither what is there now nor what was typed."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix="ingle-config-", suffix=".toml", delete=False
    ) as kept:
        kept.write(text)
    return failed(
        "CHANGED_MEANWHILE",
        f"{path} was changed by somebody else while you edited it, and stays so; your text is in {kept.name}",
        f"diff {shlex.quote(str(path))} {shlex.quote(kept.name)}; ingle config edit",
    )

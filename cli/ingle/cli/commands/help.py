"""`ingle help`: what --help says, in the order in which people ask; and all of it as a manual page."""

from typing import Annotated, Any

import typer
from typer._click.exceptions import UsageError  # what typer raises, and hides
from typer.core import TyperGroup

from ingle.cli.lazy import examples, new_app
from ingle.cli.output import say
from ingle.version import VERSION

app = new_app()


@app.command(epilog=examples("ingle help vm run", "ingle help --man | man -l -"))
def help(  # noqa: A001 - its name
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(metavar="[COMMAND]...", help="Whose help; ingle's own, unless given.")
    ] = [],  # noqa: B006 - Typer copies it
    man: Annotated[bool, typer.Option("--man", help="All of it as a manual page.")] = False,
) -> None:
    """Show how a command is used."""
    if man:
        if command:
            raise typer.BadParameter("there is one page of all commands", param_hint="'--man'")
        from ingle.cli.manual import page  # noqa: PLC0415 - it loads everything

        say(page(VERSION).removesuffix("\n"))
        return
    shown = context.find_root()
    found: Any = shown.command
    for word in command:
        if not isinstance(found, TyperGroup):
            raise UsageError(f"{shown.command_path!r} has no commands below it", shown)
        name, found, _ = found.resolve_command(shown, [word])
        shown = typer.Context(found, info_name=name, parent=shown)
    say(found.get_help(shown))

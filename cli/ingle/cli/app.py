"""The tree of commands."""

from typing import Annotated

import typer

from ingle.cli.lazy import Group, examples, new_app

_COMMANDS = "ingle.cli.commands"


class _Root(Group):
    targets = {  # noqa: RUF012 - a ClassVar of the base
        "run": f"{_COMMANDS}.vm.run:run",
        "exec": f"{_COMMANDS}.vm.run:exec",
        "ps": f"{_COMMANDS}.vm.inspect:list",
        "vm": f"{_COMMANDS}.vm",
        "image": f"{_COMMANDS}.image",
        "kernel": f"{_COMMANDS}.kernel",
        "operation": f"{_COMMANDS}.operation",
        "server": f"{_COMMANDS}.server",
        "doctor": f"{_COMMANDS}.doctor",
        "version": f"{_COMMANDS}.version",
        "completion": f"{_COMMANDS}.completion",
    }


app = new_app("Real microVMs in one command.", cls=_Root)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ingle.cli.commands.version import client_version  # noqa: PLC0415 - reading metadata is slow

        typer.echo(f"ingle {client_version()}")
        raise typer.Exit


@app.callback(
    epilog=examples(
        "ingle vm run --rm -- uname -a       # a new microVM for one command",
        "ingle vm create --name web          # one that stays",
        "ingle vm exec web -- ps aux",
        "ingle vm list",
        "ingle doctor                        # what works on this machine, and what to do about the rest",
    )
)
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of `ingle` itself."""

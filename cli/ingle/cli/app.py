"""The tree of commands."""

from typing import Annotated

import typer

from ingle.cli.lazy import Group, Target, examples, new_app

_COMMANDS = "ingle.cli.commands"


class _Root(Group):
    targets = {  # noqa: RUF012 - a ClassVar of the base
        "run": Target(f"{_COMMANDS}.vm.run:run", "Run a command in a new VM; without one, on a terminal, a shell."),
        "exec": Target(f"{_COMMANDS}.vm.run:exec", "Run a command in a running VM."),
        "shell": Target(f"{_COMMANDS}.vm.shell", "Open the login shell of a VM, or come back to it."),
        "ps": Target(f"{_COMMANDS}.vm.inspect:list", "All VMs, oldest first."),
        "vm": Target(f"{_COMMANDS}.vm", "Run, keep, look at and delete virtual machines."),
        "image": Target(f"{_COMMANDS}.image", "Root file systems that VMs start from."),
        "kernel": Target(f"{_COMMANDS}.kernel", "Kernels that VMs boot."),
        "operation": Target(f"{_COMMANDS}.operation", "Changes under way and done."),
        "server": Target(f"{_COMMANDS}.server", "The API server of this user; started when it is needed."),
        "system": Target(f"{_COMMANDS}.system", "Install ingle as a service of this whole machine, and look after it."),
        "doctor": Target(f"{_COMMANDS}.doctor", "Check this host, and say what to do about what is missing."),
        "version": Target(f"{_COMMANDS}.version", "Version of this client, and of the server if it runs."),
        "completion": Target(f"{_COMMANDS}.completion", "Print what makes TAB complete commands and names."),
    }
    aliases = {"list": "ps", "ls": "ps"}  # noqa: RUF012


app = new_app("Real microVMs in one command.", cls=_Root)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ingle.cli.commands.version import client_version  # noqa: PLC0415 - reading metadata is slow
        from ingle.cli.output import say  # noqa: PLC0415

        say(f"ingle {client_version()}")
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

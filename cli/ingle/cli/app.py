"""The tree of commands."""

from typing import Annotated

import typer

from ingle.cli.lazy import Group, Target, examples, new_app
from ingle.cli.output import say
from ingle.version import VERSION

_COMMANDS = "ingle.cli.commands"


class _Root(Group):
    targets = {  # noqa: RUF012 - a ClassVar of the base
        "run": Target(
            f"{_COMMANDS}.vm.run",
            "Run a command in a new VM; without one, what its image is to run or, on a terminal, a shell.",
        ),
        "exec": Target(f"{_COMMANDS}.vm.exec", "Run a command in a running VM."),
        "shell": Target(f"{_COMMANDS}.vm.shell", "Open the login shell of a VM, or come back to it."),
        "ps": Target(f"{_COMMANDS}.vm.inspect:list", "All of your VMs, oldest first."),
        "vm": Target(f"{_COMMANDS}.vm", "Run, keep, look at and delete virtual machines."),
        "snapshot": Target(f"{_COMMANDS}.snapshot", "VMs as they were: their disks, and the memory of those that ran."),
        "image": Target(f"{_COMMANDS}.image", "Root file systems that VMs start from."),
        "kernel": Target(f"{_COMMANDS}.kernel", "Kernels that VMs boot."),
        "engine": Target(f"{_COMMANDS}.engine", "What VMs run in."),
        "events": Target(f"{_COMMANDS}.events", "Tell what happens to VMs, snapshots, images and kernels."),
        "df": Target(
            f"{_COMMANDS}.df",
            "What VMs, snapshots, images and the rest take of this host's disks, and what can be given back.",
        ),
        "quota": Target(f"{_COMMANDS}.quota", "What you have of what you may have."),
        "operation": Target(f"{_COMMANDS}.operation", "Changes under way and done."),
        "server": Target(f"{_COMMANDS}.server", "The API server of this user; started when it is needed."),
        "config": Target(
            f"{_COMMANDS}.config", "What the server uses where a command says nothing, and the file that says it."
        ),
        "system": Target(f"{_COMMANDS}.system", "Install ingle as a service of this whole machine, and look after it."),
        "doctor": Target(f"{_COMMANDS}.doctor", "Check this host, and say what to do about what is missing."),
        "help": Target(f"{_COMMANDS}.help", "Show how a command is used."),
        "version": Target(f"{_COMMANDS}.version", "Version of this client, and of the server if it runs."),
        "completion": Target(f"{_COMMANDS}.completion", "Print what makes TAB complete commands and names."),
    }
    aliases = {"list": "ps", "ls": "ps"}  # noqa: RUF012


app = new_app("Real microVMs in one command.", cls=_Root)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"ingle {VERSION}")
        raise typer.Exit


@app.callback(
    epilog=examples(
        "ingle run --rm -- uname -a       # a new microVM for one command",
        "ingle vm create --name web       # one that stays; then: ingle shell web",
        "ingle doctor                     # what works on this machine, and what to do about the rest",
    )
)
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of `ingle` itself."""

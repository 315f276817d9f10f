"""`ingle completion`: a script for the shell."""

from enum import StrEnum
from typing import Annotated

import typer

from ingle.cli.completion_scripts import SCRIPTS
from ingle.cli.lazy import examples, new_app
from ingle.cli.output import say

app = new_app()


class Shell(StrEnum):
    """Those that ask us."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command(
    epilog=examples(
        "source <(ingle completion bash)       # for this shell",
        "ingle completion bash > ~/.local/share/bash-completion/completions/ingle",
        'ingle completion zsh > "${fpath[1]}/_ingle"',
        "ingle completion fish > ~/.config/fish/completions/ingle.fish",
    )
)
def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="Whose script to print: bash, zsh or fish.")],
) -> None:
    """Print what makes TAB complete commands and names.

    Names are those of VMs, images and kernels of a running server; none is started for it."""
    say(SCRIPTS[shell.value].removesuffix("\n"))

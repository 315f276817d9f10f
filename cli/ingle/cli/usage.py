"""Wrong usage of ingle: commands that say what was meant, and how it is told."""

import io
import shlex
from collections.abc import Collection, Sequence
from typing import Any

import typer
from typer._click.exceptions import (  # what typer raises, and hides
    MissingParameter,
    NoArgsIsHelpError,
    NoSuchOption,
    UsageError,
)
from typer.core import TyperCommand

from ingle.cli import habits, signals
from ingle.cli.errors import Failure
from ingle.cli.output import tell, tell_failure

_BARE = "ingle.bare"


class Command(TyperCommand):
    """A command of ours."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the base does. From here on a signal passes every `finally`."""
        given = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except UsageError as error:
            _explain(error, ctx, given)
            raise
        signals.pass_every_finally()
        return rest


class NewVmCommand(Command):
    """One that makes a VM for a guest command, its last words and its parameter `command`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the base does; refuses what can't be a command."""
        given = list(args)
        rest = super().parse_args(ctx, args)
        words = ctx.params.get("command") or []
        options = given[: len(given) - len(words)]
        if words and not ctx.resilient_parsing and "--" not in {*options[-1:], words[0]}:
            ctx.meta[_BARE] = options
            if not ctx.params.get("image"):
                refuse_no_command(ctx, words)
        return rest


def refuse_no_command(ctx: typer.Context, words: Sequence[str], images: Collection[str] = ()) -> None:
    """Raises a usage error when the first of the words, with no `--` before it, is not meant as a guest command.
    `images`: names of those that are here."""
    if _BARE in ctx.meta and (why := habits.no_command(ctx.command_path, ctx.meta[_BARE], words, images)):
        raise UsageError(why, ctx)


def may_be_an_image(ctx: typer.Context) -> bool:
    """Whether the first word of the guest command could be an image: no `--` is before it, and no --image given."""
    return _BARE in ctx.meta and not ctx.params.get("image")


def came_after_dashes(ctx: typer.Context) -> bool:
    """Whether `--` is before the guest command, so that whatever it begins with is meant."""
    return _BARE not in ctx.meta


class NoSuchCommand(UsageError):
    """`remedy`: what was meant, if that is known."""

    def __init__(self, message: str, ctx: Any, remedy: str) -> None:
        super().__init__(message, ctx)
        self.remedy = remedy


def no_such_command(ctx: Any, words: list[str], here: Collection[str], of_vms: Collection[str]) -> NoSuchCommand:
    """The error for an unknown command; `words` begin with it."""
    group = " ".join(ctx.command_path.split()[1:])
    meant = habits.command_meant(group, words, here, of_vms)
    _note_json(ctx, words)
    replacement = habits.replacement(group, words, of_vms)
    return NoSuchCommand(f"No such command {words[0]!r}{meant or '.'}", ctx, replacement and f"ingle {replacement}")


def tell_usage_error(error: typer.TyperException, *, as_json: bool) -> None:
    """On stderr, as any failure is: with what to type for the help. A group that was typed alone gets its own."""
    if isinstance(error, NoArgsIsHelpError) or not isinstance(error, UsageError):
        shown = io.StringIO()
        error.show(shown)  # type: ignore[attr-defined] # all but Exit and Abort have it
        tell(shown.getvalue().removesuffix("\n"))
        return
    remedy = f"{error.ctx.command_path} --help" if error.ctx is not None else "ingle --help"
    if isinstance(error, NoSuchCommand) and error.remedy:
        remedy = error.remedy
    tell_failure(Failure("INVALID_ARGUMENT", error.format_message(), remedy), as_json=as_json)


def _explain(error: UsageError, ctx: Any, given: Sequence[str]) -> None:
    _note_json(ctx, given)
    if isinstance(error, NoSuchOption):
        if meant := habits.option_meant(error.option_name):
            error.possibilities = None
            error.message += f": {meant}"
    elif isinstance(error, MissingParameter) and ctx.info_name == "exec" and (vm := ctx.params.get("vm")):
        error.param_hint = "'COMMAND'"
        error.message = f"For the login shell: ingle shell {shlex.quote(vm)}"
    elif isinstance(error, MissingParameter) and not error.message:
        error.message = getattr(error.param, "help", "") or ""
    elif error.message.startswith("Got unexpected extra argument") and "no_start" in ctx.params:
        error.message += f": {habits.extra_argument_meant(error.message.rpartition('(')[2].rstrip(')').split()[0])}"


def _note_json(ctx: Any, words: Sequence[str]) -> None:
    """It may come behind what is wrong."""
    if "--json" in words and (settings := ctx.find_root().obj) is not None:
        settings.json = True

"""Groups of commands that are loaded when one is used: a short command must not pay for the others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_command_name
from typer.models import CommandInfo

from ingle.cli.usage import Command, no_such_command

AnyCommand = TyperCommand | TyperGroup

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Target(NamedTuple):
    """Where a command is: "module" for the app of a module, "module:name" for one of the commands of that app. `help`
    is its line in the help of its group, which does not load it for that."""

    place: str
    help: str


class _Commands(Mapping[str, AnyCommand]):
    """Name -> command, loaded when it is asked for. Aliases are found, and not listed."""

    def __init__(
        self, loaded: Mapping[str, AnyCommand], targets: Mapping[str, Target], aliases: Mapping[str, str]
    ) -> None:
        self._loaded = dict(loaded)
        self._targets = targets
        self._aliases = aliases

    def __getitem__(self, name: str) -> AnyCommand:
        name = self._aliases.get(name, name)
        if name not in self._loaded:
            self._loaded[name] = _load(self._targets[name].place)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets or self._loaded)

    def __len__(self) -> int:
        return len(self._targets or self._loaded)


class Group(TyperGroup):
    """A group of commands: those of its app, or those that `targets` names."""

    targets: ClassVar[Mapping[str, Target]] = {}
    aliases: ClassVar[Mapping[str, str]] = {"ls": "list", "rm": "delete"}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        own = cast("dict[str, AnyCommand]", self.commands)
        self.commands = cast("dict[str, Any]", _Commands(own, self.targets, self.aliases))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As the base does, with an error that knows what people may have meant."""
        if args[0] in self.commands or args[0].startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        of_vms = cast("Group", _load("ingle.cli.commands.vm"))
        raise no_such_command(ctx, args, list(self.commands), {*of_vms.commands, *of_vms.aliases})

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """As the base does, but without loading what is known."""
        if not self.targets:
            super().format_commands(ctx, formatter)
            return
        with formatter.section("Commands"):
            formatter.write_dl([(name, target.help) for name, target in self.targets.items()])


class App(typer.Typer):
    """Typer's, with commands of our own class."""

    def command(self, *args: Any, **settings: Any) -> Callable[[_Function], _Function]:
        """As the base does."""
        return super().command(*args, **{"cls": Command, **settings})


def new_app(help_text: str = "", *, first: Sequence[str] = (), cls: type[Group] = Group) -> App:
    """A Typer app as all of ours are: plain help, no tracebacks drawn, no options of Typer's own. `first`: the three
    command lines that somebody who typed the group alone needs next."""
    return App(
        cls=cls,
        help=help_text or None,
        epilog=examples(*first) if first else None,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def examples(*lines: str) -> str:
    """The epilog of a command's help: command lines to copy."""
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def _load(place: str) -> AnyCommand:
    module, _, name = place.partition(":")
    app = import_module(module).app
    if name:  # its neighbours' parsers are not built
        neighbours = app.registered_commands
        app = new_app()
        app.registered_commands = [command for command in neighbours if _name(command) == name]
    return cast("AnyCommand", get_command(app))


def _name(command: CommandInfo) -> str:
    assert command.callback is not None
    return command.name or get_command_name(command.callback.__name__)

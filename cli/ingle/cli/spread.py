"""Options that several commands share: the fields of a dataclass, of which a command takes one."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from functools import wraps
from typing import Any, TypeVar, get_type_hints

Options = TypeVar("Options")


def spread(shared: type[Options]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For a command with a parameter of the type `shared`, a dataclass whose fields are annotated as Typer's options
    are: Typer, and so the user, sees an option for each of them in its place."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters = inspect.signature(command, eval_str=True).parameters
        [place] = (name for name, parameter in parameters.items() if parameter.annotation is shared)
        options = _options(shared, parameters[place].kind)
        seen = [*parameters.values()]
        at = list(parameters).index(place)
        seen[at : at + 1] = options

        @wraps(command)
        def spread_out(**given: Any) -> None:
            chosen = {option.name: given.pop(option.name) for option in options}
            command(**given, **{place: shared(**chosen)})

        vars(spread_out)["__signature__"] = inspect.Signature(seen)
        spread_out.__annotations__ = {parameter.name: parameter.annotation for parameter in seen}
        return spread_out

    return decorate


def _options(shared: Any, kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(shared, include_extras=True)
    return [
        inspect.Parameter(field.name, kind, default=_default(field), annotation=hints[field.name])
        for field in fields(shared)
    ]


def _default(field: "Field[Any]") -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()

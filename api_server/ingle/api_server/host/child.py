"""Work on what a caller sent, which nobody has looked at yet: in a process of its own, bounded in memory and time.

What is wrong with the input, is told as if it had been found here; what takes too much, is ended and told as TooMuch.
"""

import json
import resource
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NoReturn, TypeVar

from ingle.api_server.host.tool import Tools, require
from ingle.api_server.model import errors

R = TypeVar("R")

MEMORY = 1536 << 20
SECONDS = 60
"""Of processor time, and as much again for each 16 MiB of input."""

_REFUSED, _TOO_MUCH = 3, 4
_A_PORTION = 16 << 20


class TooMuch(Exception):
    """It would have taken more memory or time than any honest input does."""


async def in_child(tools: Tools, function: Callable[..., R], source: Path, *arguments: Path | str) -> R:
    """Call a function of a module, whose arguments are text there, and whose answer is what JSON can hold; `source` is
    its first, and how much time there is depends on its size.

    Raises TooMuch, ToolFailed, and the IngleErrors of `function`."""
    portions = 1 + (source.stat().st_size // _A_PORTION if source.is_file() else 0)
    place = f"{function.__module__}:{function.__qualname__}"
    words = [str(SECONDS * portions), place, *map(str, (source, *arguments))]
    argv = [sys.executable, "-P", "-m", __name__, json.dumps(words)]
    said = json.loads(await tools.run(argv, accept=(0, _REFUSED, _TOO_MUCH)))
    if isinstance(said, dict) and "refused" in said:
        kind, reason, message, remedy = said["refused"]
        raise getattr(errors, kind)(errors.Reason[reason], message, remedy)
    if said == "too much":
        raise TooMuch
    answer: R = said["answer"]
    return answer


def limited(program: str) -> tuple[str, ...]:
    """The beginning of a command that reads what a caller sent. Raises HostProblem(DEPENDENCY_MISSING)."""
    return ("prlimit", f"--as={4 << 30}", "--cpu=3600", "--core=0", "--", require(program))


def _main() -> int:
    seconds, place, *arguments = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXCPU, _out_of_time)
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
    module, _, name = place.partition(":")
    try:
        answer = getattr(import_module(module), name)(*arguments)
    except errors.IngleError as error:
        _say({"refused": [type(error).__name__, error.reason.name, error.message, error.remedy]})
        return _REFUSED
    except (TooMuch, MemoryError, RecursionError):
        _say("too much")
        return _TOO_MUCH
    _say({"answer": answer})
    return 0


def _out_of_time(*_: object) -> NoReturn:
    raise TooMuch


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what))


if __name__ == "__main__":
    sys.exit(_main())

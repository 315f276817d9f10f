"""Whether a VM is well, by a command in its guest: what is asked, how often, and what the answers come to."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.image_config import Healthcheck

MOST_OUTPUT = 4096
"""Bytes of what a check says that are kept."""

NOT_RUN = -1
"""In the place of an exit code: it could not be run, or took too long."""

_SHELL = ("/bin/sh", "-c")
_NONE, _COMMAND, _LINE = "NONE", "CMD", "CMD-SHELL"
_SECOND, _HOUR, _DAY = 1000, 3_600_000, 86_400_000
_DEFAULTS = Healthcheck((), interval=30 * _SECOND, timeout=30 * _SECOND, retries=3)
_BOUNDS = {
    "interval": (_SECOND, _DAY, "1s to 24h"),
    "timeout": (_SECOND, _HOUR, "1s to 1h"),
    "start_period": (0, _DAY, "up to 24h"),
    "retries": (1, 100, "1 to 100"),
}
_MOST_TEST_BYTES = 16 * 1024

NO_HEALTHCHECK = Healthcheck(())
"""Of a VM that is not asked."""


def check_healthcheck(wish: Healthcheck) -> None:
    """Raise InvalidArgument for what nobody could be asked. 0 and empty leave it to the image."""
    kind, *command = wish.test or (_NONE,)
    right = (kind == _NONE and not command) or (kind == _LINE and len(command) == 1) or (kind == _COMMAND and command)
    if not right or any("\0" in word for word in command) or (kind != _NONE and not command[0].strip()):
        raise InvalidArgument(
            "healthcheck: NONE; CMD and a command; or CMD-SHELL and one line is allowed",
            "--health-cmd 'curl -f localhost'",
            field="healthcheck",
        )
    if sum(len(word.encode(errors="replace")) for word in wish.test) > _MOST_TEST_BYTES:
        raise InvalidArgument("healthcheck: a command of 16 KiB at most is allowed", field="healthcheck")
    for name, (least, most, told) in _BOUNDS.items():
        value = getattr(wish, name)
        if value and not least <= value <= most:
            raise InvalidArgument(f"healthcheck: {name} {told} is allowed", field="healthcheck")


def settled(wish: Healthcheck | None, image: Healthcheck | None) -> Healthcheck:
    """What a VM is asked, with nothing left open: as was wished, else as its image says, else as docker has it. What an
    image says beyond bounds is the nearest that is allowed."""
    known = [each for each in (wish, image) if each is not None]
    test = next((each.test for each in known if each.test), ())
    if not _command(test):
        return NO_HEALTHCHECK
    times: dict[str, int] = {}
    for name, (least, most, _) in _BOUNDS.items():
        said = next((value for each in known if (value := getattr(each, name)) > 0), getattr(_DEFAULTS, name))
        times[name] = min(max(said, least), most)
    return Healthcheck(test, **times)


def command_of(check: Healthcheck) -> tuple[str, ...]:
    """What is run in the guest; empty: nothing."""
    return _command(check.test)


def _command(test: tuple[str, ...]) -> tuple[str, ...]:
    kind, *words = test or (_NONE,)
    if kind == _LINE and words:
        return (*_SHELL, words[0])
    return tuple(words) if kind == _COMMAND and words and words[0] else ()


class HealthStatus(Enum):
    """What its checks come to."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Checked:
    """How one check has ended. `output` is the beginning of what it said, or why it could not be run."""

    at: datetime
    exit_code: int
    output: str


@dataclass(frozen=True, slots=True)
class VmHealth:
    """Of a VM that runs."""

    status: HealthStatus = HealthStatus.STARTING
    failures: int = 0
    """In a row."""

    last: Checked | None = None

    def after(self, checked: Checked, check: Healthcheck, *, starts: bool) -> "VmHealth":
        """What it is once another check has ended. `starts`: in the time in which failures don't count."""
        if checked.exit_code == 0:
            return VmHealth(HealthStatus.HEALTHY, 0, checked)
        if starts and self.status is HealthStatus.STARTING:
            return replace(self, last=checked)
        failures = self.failures + 1
        status = HealthStatus.UNHEALTHY if failures >= check.retries else self.status
        return VmHealth(status, failures, checked)

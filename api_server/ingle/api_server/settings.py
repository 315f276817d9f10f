"""The settings that the server goes by: those of its file as that is now, and of the environment it was started with.

A value that is only read at the start needs a new server; what a caller's environment says is nothing to this one.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from ingle.api_server.config import SETTINGS, Config, Setting, load
from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.quota import Quota
from ingle.api_server.model.spec import Defaults
from ingle.api_server.quotas import quota_of

_PREFIX = "INGLE_"
_OTHERS = ("INGLE_SOCKET", "INGLE_MODE", "INGLE_COMPLETE")
_OWN_PREFIXES = ("INGLE_STATE", "INGLE_TOOL", "INGLE_OPERATION", "INGLE_LAB_", "INGLE_TESTS_")
_AT_START = frozenset({"domain", "firecracker"})
_LONGEST = 500
_LONGEST_TYPED = 100
_TOLD = 20


class LiveSettings:
    """Reads the file again whenever it is another than before."""

    def __init__(self, config: Config, env: Mapping[str, str]) -> None:
        self._started = self._config = config
        self._env = dict(env)
        self._seen = _identity(config.paths.config)

    def defaults(self) -> Defaults:
        """For a VM that is made now. Raises InvalidArgument when somebody has broken the file."""
        return self._now().defaults

    def quota(self, uid: int) -> Quota:
        """What that user may have now; when the file is broken, what it might before."""
        try:
            now = self._now()
        except IngleError:
            now = self._config
        return quota_of(now.quotas, uid)

    def current(self) -> tuple[Setting, ...]:
        """As they are used; when the file is broken, as they were before."""
        try:
            now = self._now().settings
        except IngleError:
            now = self._config.settings
        old = {setting.name: setting for setting in self._started.settings}
        return tuple(old[setting.name] if setting.name in _AT_START else setting for setting in now)

    def differences(self, environment: Mapping[str, str]) -> list[str]:
        """What the file, or a caller with `environment`, says that is not so, in sentences."""
        said = unknown_variables(environment)
        ours = {setting.name: setting for setting in self.current()}
        env = {key: value for key, value in self._env.items() if not key.startswith(_PREFIX)}
        env |= {key: value for key, value in environment.items() if key.startswith(_PREFIX)}
        try:
            theirs = load(env, system=self._config.system).settings
        except IngleError as error:
            return [*said, error.message[:_LONGEST]]
        for setting in theirs:
            own = ours[setting.name]
            if setting.value != own.value:
                said.append(
                    f"{setting.name} is {own.value or 'not set'} for the server ({own.origin}), and "
                    f"{setting.value or 'not set'} by {setting.origin}"[:_LONGEST]
                )
        return said

    def _now(self) -> Config:
        seen = _identity(self._started.paths.config)
        if seen != self._seen:
            self._config = load(self._env, system=self._started.system)
            self._seen = seen
        return self._config


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """A sentence for each INGLE_ variable that means nothing; of very many, for the first ones."""
    known = (*_OTHERS, *(f"{_PREFIX}{name.upper()}" for name in SETTINGS))
    unknown = sorted(
        variable[:_LONGEST_TYPED]
        for variable in env
        if variable.startswith(_PREFIX) and variable not in known and not variable.startswith(_OWN_PREFIXES)
    )
    said = []
    for variable in unknown[:_TOLD]:
        nearest = difflib.get_close_matches(variable, known, n=1, cutoff=0.0)[0]
        said.append(f"${variable} means nothing; is ${nearest} meant?")
    if len(unknown) > _TOLD:
        said.append(f"{len(unknown) - _TOLD} more variables {_PREFIX}… mean nothing")
    return said


def _identity(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

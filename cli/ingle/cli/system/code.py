"""Where the code is that root and the service user shall run, and whether nobody else can change it."""

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from ingle.cli.errors import CliError, failed

_AS_ROOT = "sudo python3 -m venv /opt/ingle && sudo /opt/ingle/bin/pip install 'ingle[cli,server]'"


def prefix() -> Path:
    """The virtual environment that this command runs from, once all of it can be trusted with root's rights.

    Raises CliError when it is no environment of its own, or when somebody but root could change what is in it, or when
    the service user could not read it."""
    if sys.prefix == sys.base_prefix:
        raise _unfit(f"{sys.executable} is not of a virtual environment that holds ingle and nothing else")
    environment = Path(sys.prefix).resolve()
    check(environment)
    check_program(Path(sys.executable).resolve())
    return environment


def check(directory: Path) -> None:
    """Raise CliError unless root alone can change `directory`, all above and all in it, and everybody can read it."""
    for path in (*directory.parents, directory, *_below(directory)):
        _check_one(path)


def check_program(program: Path) -> None:
    """The same for one file."""
    for path in (*program.parents, program):
        _check_one(path)


def _check_one(path: Path) -> None:
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode):
        if info.st_uid != 0:
            raise _unfit(f"{path} belongs to uid {info.st_uid}")
        return
    if info.st_uid != 0:
        raise _unfit(f"{path} belongs to uid {info.st_uid}, who could change what root runs")
    sticky = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        raise _unfit(f"{path} can be written by others than root (mode {stat.S_IMODE(info.st_mode):04o})")
    readable = stat.S_IXOTH if stat.S_ISDIR(info.st_mode) else stat.S_IROTH
    if not info.st_mode & readable:
        raise _unfit(f"{path} can't be read by the service's user (mode {stat.S_IMODE(info.st_mode):04o})")


def _below(directory: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(directory):
        for name in (*directories, *names):
            yield Path(parent) / name


def _unfit(why: str) -> CliError:
    return failed("WRONG_STATE", f"this ingle can't become the system's: {why}", _AS_ROOT)

"""Changes of the configuration file, which keeps its comments."""

import errno
import shlex
import subprocess
import sys
from pathlib import Path

from ingle.cli import config_file, paths
from ingle.cli.client import connect_if_running
from ingle.cli.errors import OUTPUT_FAILED, CliError, Failure, failed
from ingle.cli.output import tell
from ingle.cli.server_process import SERVER_COMMAND, why_it_failed
from ingle.cli.settings import asked

_CHECK_SECONDS = 60
_TRIES = 5
_FULL = (errno.ENOSPC, errno.EDQUOT)


def change(changes: dict[str, str | None]) -> None:
    """Write these values, or take out those that are None, unless the server would refuse what comes of it. Raises
    CliError."""
    path = paths.config_file()
    for tries_left in reversed(range(_TRIES)):
        former = config_file.read(path)
        text = config_file.changed(former, changes, path)
        if text == former:
            says = "says so already" if any(changes.values()) else f"sets no {' or '.join(map(repr, changes))}"
            tell(f"{path} {says}: nothing was changed")
            return
        check(text, path)
        try:
            write(path, text, former)
        except config_file.ChangedMeanwhile:
            if tries_left:
                continue
            raise failed("CHANGED_MEANWHILE", f"{path} is changed again and again by somebody else") from None
        tell_written(path)
        return


def check(text: str, path: Path) -> None:
    """As a server would read it from there. Raises CliError."""
    system = ["--system"] if paths.api_address().of_system else []
    checked = subprocess.run(
        [*SERVER_COMMAND, "config", *system],
        input=text.encode(),
        capture_output=True,
        check=False,
        timeout=_CHECK_SECONDS,
    )
    if checked.returncode != 0:
        said = checked.stderr.decode(errors="replace").splitlines()
        message, remedy = why_it_failed(f"{path} stays as it was, since the server would refuse this", said)
        raise CliError(Failure("INVALID_ARGUMENT", message, remedy))


def write(path: Path, text: str, former: str) -> None:
    """In the place of what was there, `former`. Raises CliError, config_file.ChangedMeanwhile."""
    try:
        config_file.replace(path, text, former)
    except PermissionError as error:
        what = f"{path}: {error.strerror}"
        remedy = f"sudo ingle {shlex.join(sys.argv[1:])}" if paths.api_address().of_system else ""
        raise failed("INVALID_ARGUMENT", what, remedy) from error
    except OSError as error:
        remedy = f"df -h {shlex.quote(str(path.parent))}" if error.errno in _FULL else ""
        raise failed(OUTPUT_FAILED, f"{path} stays as it was: {error.strerror}", remedy) from error


def tell_written(path: Path) -> None:
    """And what the server that runs does not go by yet."""
    tell(f"{path} is written; VMs that are made from now on go by it")
    client = connect_if_running()
    if client is None:
        return
    with client:
        differences = asked(client).differences
    restart = "sudo ingle system restart" if paths.api_address().of_system else "ingle server restart"
    for difference in differences:
        tell(f"warning: {difference}\n  remedy: {restart}")

"""Run one command, and turn whatever happens into text and an exit code."""

import os
import signal
import sys
from typing import Never

import typer
from typer.main import get_command

from ingle.cli import completion
from ingle.cli.app import app
from ingle.cli.errors import EXIT_FAILED, EXIT_SIGNAL, EXIT_USAGE, CliError, Failure, refused_by_the_system
from ingle.cli.options import Settings
from ingle.cli.output import tell, tell_failure
from ingle.cli.usage import tell_usage_error

_STDOUT, _STDERR = 1, 2
TRACEBACK_VARIABLE = "INGLE_TRACEBACK"


def run() -> Never:
    """Run the command line that this process was started with."""
    _fill_standard_streams()
    settings = Settings()
    stdout = sys.stdout
    try:
        completion.prepare()
        sys.exit(get_command(app).main(prog_name="ingle", obj=settings, standalone_mode=False))
    except SystemExit:
        if sys.stdout is not stdout:  # nobody reads it any more, and typer has put there what says nothing of that
            sys.exit(EXIT_SIGNAL + signal.SIGPIPE)
        raise
    except typer.TyperException as error:
        tell_usage_error(error, as_json=settings.json)
        sys.exit(error.exit_code)
    except typer.Abort:
        tell("Aborted!")
        sys.exit(EXIT_FAILED)
    except CliError as error:
        _fail(error, settings)
    except KeyboardInterrupt:  # outside of what typer looks after
        sys.exit(EXIT_SIGNAL + signal.SIGINT)
    except UnicodeEncodeError as error:
        # Text of the API is UTF-8, names of files apart; Python smuggles other bytes in as lone surrogates.
        tell_failure(Failure("INVALID_ARGUMENT", f"{error.object!r} is not UTF-8"), as_json=settings.json)
        sys.exit(EXIT_USAGE)
    except OSError as error:
        _fail(refused_by_the_system(error), settings)
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        message = f"this is a fault of ingle's: {type(error).__name__}: {error}"
        remedy = f"report it, with what the same command prints under {TRACEBACK_VARIABLE}=1"
        tell_failure(Failure("INTERNAL", message, remedy), as_json=settings.json)
        sys.exit(EXIT_FAILED)


def _fail(error: CliError, settings: Settings) -> Never:
    for failure in error.failures:
        tell_failure(failure, as_json=settings.json)
    # What could not be written would be tried again at exit, which would then end with Python's own 120.
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    sys.exit(error.exit_code)


def _fill_standard_streams() -> None:
    """Whoever closed 0, 1 or 2 must not find our socket there: a guest's output would go into it."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(fd)

"""Files of this machine that come from the server, which are made with the rights of who calls."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ingle.cli.errors import failed
from ingle.cli.output import is_terminal
from ingle.cli.replacing import check_replaceable, put_in_place

STDOUT = "-"


@contextmanager
def file_or_stdout(file: str) -> Iterator[Callable[[bytes], object]]:
    """What takes content: a file of mode 0600, which is there only when all is, or stdout for -. Raises CliError."""
    if file == STDOUT:
        if is_terminal(sys.stdout):
            raise failed("INVALID_ARGUMENT", "stdout is a terminal: send it through a pipe, or name a file")
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    path = Path(file)
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            check_replaceable(directory, path.name, stat.S_IFREG, path)
            with put_in_place(directory, path.name) as temporary:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
                with open(descriptor, "wb") as made:
                    yield made.write
        finally:
            os.close(directory)
    except OSError as error:
        raise failed("INVALID_ARGUMENT", f"{file}: {error.strerror}") from error

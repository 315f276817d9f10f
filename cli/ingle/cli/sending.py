"""Files and directories of this machine on their way to the server, which are read with the rights of who calls."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import Message

from ingle.cli.errors import failed
from ingle.cli.output import is_terminal, tell
from ingle.cli.packing import pack_for_server, segments
from ingle.cli.printable import one_line
from ingle.cli.stages import Stages
from ingle.cli.uploads import Upload

STDIN = "-"

_CHUNK = 256 * 1024
_LONGEST_SOURCE = 1000

_R = TypeVar("_R", bound=Message)


def described(path: str) -> str:
    """What people read as the source of what is sent."""
    return "stdin" if path == STDIN else one_line(os.path.abspath(path))[:_LONGEST_SOURCE]


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor of a file, or of stdin. Raises CliError."""
    if path == STDIN:
        if is_terminal(sys.stdin):
            raise failed("INVALID_ARGUMENT", "stdin is a terminal: send an archive through a pipe, or name a file")
        yield sys.stdin.fileno()
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise failed("INVALID_ARGUMENT", f"{path}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def send_file(descriptor: int, name: str, upload: Upload[_R], stages: Stages) -> None:
    """A file's content, its holes as holes; of what is no regular file all that comes. Raises CliError."""
    facts = os.fstat(descriptor)
    regular = stat.S_ISREG(facts.st_mode)
    found = segments(descriptor, facts) if regular else None
    progress = _Progress(name, sum(size for _, size in found) if found else facts.st_size if regular else 0, stages)
    try:
        if found is None:
            while piece := os.read(descriptor, _CHUNK):
                progress.sent(upload.write(piece))
            return
        end = 0
        for begin, size in found:
            upload.skip(begin - end)
            end = begin
            while end < begin + size:
                piece = os.pread(descriptor, min(begin + size - end, _CHUNK), end)
                if not piece:
                    raise failed("INVALID_ARGUMENT", f"{name}: it shrank while it was read")
                end += progress.sent(upload.write(piece))
        upload.skip(facts.st_size - end)
    except OSError as error:
        raise failed("INVALID_ARGUMENT", f"{name}: {error.strerror}") from error


def send_archive(sources: list[tuple[Path, str]], what: str, upload: Upload[_R], stages: Stages) -> None:
    """Files and directories as one archive, under the names that go with them. Raises CliError."""
    stages.under_way(f"Sending {what}")
    left_out = pack_for_server(sources, upload, lambda name, size: None)
    for path in left_out.files:
        tell(one_line(f"ingle: left out: {path} (it is a socket)"))


def sent(upload: Upload[_R], send: Callable[[Upload[_R]], None], doing: str, stages: Stages) -> _R:
    """Send, say that this is all, and answer what the server made of it; `doing` is what people read meanwhile."""
    try:
        send(upload)
    except BaseException:
        upload.cancel()
        raise
    stages.under_way(doing)
    return upload.finish()


class _Progress:
    """Tells a person how much has been sent."""

    def __init__(self, name: str, total: int, stages: Stages) -> None:
        self._text = f"Sending {name}"
        self._total = total
        self._stages = stages
        self._bytes = 0
        stages.under_way(self._text)

    def sent(self, size: int) -> int:
        """So much more; answers it."""
        self._bytes += size
        if self._total:
            self._stages.under_way(self._text, min(1.0, self._bytes / self._total))
        return size

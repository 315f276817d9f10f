"""Structured logs: one JSON object a line on stderr, with the op_id of the call it was for.

Where stderr is the file that the command line gave to the server, it is bounded: that and one before it are kept."""

import json
import logging
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from ingle.api_server.host.context import current_operation

# What every LogRecord has by itself; anything else was given as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

LARGEST_LOG = 10 * 1024 * 1024
_OFTEN = 5  # times within the period; then the same is left out until that is over
_PERIOD_SECONDS = 60.0
_REMEMBERED = 256


class JsonFormatter(logging.Formatter):
    """Keys: time, level, logger, op_id, message, the extras, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        extras = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "op_id": current_operation.get(),
            "message": record.getMessage(),
            **extras,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Repetitions(logging.Filter):
    """Leaves out warnings and errors that say the same again and again; the next one tells how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written."""
        if record.levelno < logging.WARNING:
            return True
        key, now = (record.name, record.getMessage()), self._clock()
        since, times = self._seen.pop(key, (now, 0))
        if now - since >= _PERIOD_SECONDS:
            if times > _OFTEN:
                record.left_out = times - _OFTEN
            since, times = now, 0
        self._seen[key] = since, times + 1
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        if times + 1 == _OFTEN:
            record.repeated = f"the same is left out for {_PERIOD_SECONDS:.0f} s"
        return times < _OFTEN


class Departures(logging.Filter):
    """Leaves out what gRPC says of answers whose callers had gone, which it can't tell from faults."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written."""
        return record.exc_info is None or type(record.exc_info[1]).__name__ != "ExecuteBatchError"


class BoundedStderr(logging.StreamHandler[TextIO]):
    """Writes to stderr, and puts a new file in the place of one that has become large, if it is `own`."""

    def __init__(self, own: Path | None, largest: int) -> None:
        super().__init__(sys.stderr)
        self._own = own
        self._largest = largest

    def emit(self, record: logging.LogRecord) -> None:
        """Write it; what can't be written must not end who says it."""
        super().emit(record)
        with suppress(OSError):
            self._bound()

    def _bound(self) -> None:
        mine = os.fstat(sys.stderr.fileno())
        if self._own is None or mine.st_size < self._largest or not os.path.samestat(mine, self._own.stat()):
            return
        self._own.rename(former(self._own))
        new = os.open(self._own, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW, 0o600)
        for standard in (sys.stdout, sys.stderr):
            os.dup2(new, standard.fileno())
        os.close(new)


def former(log: Path) -> Path:
    """The one before."""
    return log.with_name(log.name + ".1")


def set_up(level: str, own: Path | None = None, largest: int = LARGEST_LOG) -> None:
    """Log to stderr, which may be the file `own`: that is replaced when it is larger."""
    handler = BoundedStderr(own, largest)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(Departures())
    handler.addFilter(Repetitions())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # aiosqlite narrates every statement at debug, grpc's own noise is not for operators.
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)

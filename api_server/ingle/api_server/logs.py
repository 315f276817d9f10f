"""Structured logs: one JSON object a line on stderr, with the op_id of the call it was for."""

import json
import logging
import sys
from datetime import UTC, datetime

from ingle.api_server.host.context import current_operation

# What every LogRecord has by itself; anything else was given as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


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


def set_up(level: str) -> None:
    """Log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # aiosqlite narrates every statement at debug, grpc's own noise is not for operators.
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)

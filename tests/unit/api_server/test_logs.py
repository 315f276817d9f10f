"""The server's own log: bounded, private, and not filled by one thing said again and again."""

import json
import logging
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from ingle.api_server.logs import Departures, Repetitions, former

LEFT = import_module("grpc._cython.cygrpc").ExecuteBatchError
"""What gRPC raises where an answer finds nobody."""

_LOGS = """
import logging, os, sys
from pathlib import Path
from ingle.api_server import logs
logs.set_up("info", Path(sys.argv[1]), 20_000)
for number in range(1000):
    logging.info("line %d", number)
print("through stdout", flush=True)
os.write(2, b"not by logging\\n")
"""


def say(log: Path, own: Path) -> None:
    with log.open("ab") as output:
        subprocess.run([sys.executable, "-c", _LOGS, own], stdout=output, stderr=output, check=True)


def test_a_log_that_has_become_large_is_kept_once_and_a_new_private_one_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.touch(mode=0o600)
    say(log, log)
    assert {path.name for path in tmp_path.iterdir()} == {"server.log", "server.log.1"}
    lines = former(log).read_bytes().splitlines() + log.read_bytes().splitlines()
    assert lines[-2:] == [b"through stdout", b"not by logging"]
    said = [json.loads(line)["message"] for line in lines[:-2]]
    assert said == [f"line {number}" for number in range(1000 - len(said), 1000)]
    for path in tmp_path.iterdir():
        assert path.stat().st_size < 25_000
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_not_the_servers_is_left_whole(tmp_path: Path) -> None:
    somebodys = tmp_path / "somebodys"
    say(somebodys, tmp_path / "server.log")
    assert [path.name for path in tmp_path.iterdir()] == ["somebodys"]
    assert len(somebodys.read_bytes().splitlines()) == 1002


def record(message: str, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord("ingle", level, __file__, 1, message, None, None)


def test_the_same_error_is_written_some_times_a_minute_and_counted() -> None:
    now = 0.0
    repetitions = Repetitions(lambda: now)
    written = [repetitions.filter(record("accept: too many open files")) for _ in range(1000)]
    assert written == [True] * 5 + [False] * 995
    assert repetitions.filter(record("another"))
    assert all(repetitions.filter(record("call", logging.INFO)) for _ in range(1000))
    now = 61.0
    again = record("accept: too many open files")
    assert repetitions.filter(again)
    assert vars(again)["left_out"] == 995


def test_who_says_ever_new_things_is_not_remembered_for_ever() -> None:
    repetitions = Repetitions(lambda: 0.0)
    for number in range(10_000):
        repetitions.filter(record(f"error {number}"))
    assert len(vars(repetitions)["_seen"]) <= 256


def test_what_grpc_says_of_callers_who_have_gone_is_no_error() -> None:
    def told(error: Exception) -> bool:
        record = logging.makeLogRecord({"exc_info": (type(error), error, None), "levelno": logging.ERROR})
        return Departures().filter(record)

    assert not told(LEFT('Failed "execute_batch"'))
    assert told(ValueError("a fault"))
    assert Departures().filter(logging.makeLogRecord({}))

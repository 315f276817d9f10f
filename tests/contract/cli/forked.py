"""Runs of `ingle`, each a process of its own that is forked from one with all modules loaded.

python -m contract.cli.forked: each line on stdin is [variables, command line] as JSON, answered by
[code, output, errors].
"""

import importlib
import json
import os
import pkgutil
import signal
import sys
import tempfile
from typing import Never

import ingle.cli
from ingle.cli.__main__ import main

_SECONDS = 60


def load_all() -> None:
    """Load every module of the command line."""
    for module in pkgutil.walk_packages(ingle.cli.__path__, "ingle.cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def serve() -> None:
    """Take command lines until there are no more."""
    load_all()
    for line in sys.stdin:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if pid == 0:
                variables, argv = json.loads(line)
                os.environ.update(variables)
                _run(argv, out.fileno(), err.fileno())
            _, status = os.waitpid(pid, 0)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="surrogateescape"))
        print(json.dumps([os.waitstatus_to_exitcode(status), *texts]), flush=True)  # noqa: T201 - the answer


def _run(argv: list[str], out: int, err: int) -> Never:
    signal.alarm(_SECONDS)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.argv = ["ingle", *argv]
    try:
        main()
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(int(ended.code or 0))
    os._exit(70)


if __name__ == "__main__":
    serve()

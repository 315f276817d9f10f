"""The command `ingle-server`: serve, examine the host, or check a configuration."""

import argparse
import asyncio
import faulthandler
import os
import sys
from collections.abc import Sequence

from ingle.api_server import config, doctor, logs
from ingle.api_server.host.descriptors import LEAST, most_descriptors, raise_limit
from ingle.api_server.model.errors import Conflict, HostProblem, IngleError, Reason
from ingle.api_server.model.exhaustion import exhaustion
from ingle.api_server.plugged import MakeEngines, vmm_engines
from ingle.api_server.server import serve

# sysexits.h: EX_CONFIG, and EX_TEMPFAIL for "somebody else serves already".
_CONFIG_ERROR = 78
_ALREADY_SERVED = 75


def main(argv: Sequence[str] | None = None, engines: MakeEngines = vmm_engines) -> int:
    """Exit codes: 0, 1 (doctor found a failure; serving failed), 75 (another server runs), 78 (bad configuration)."""
    parser = argparse.ArgumentParser(prog="ingle-server", description="ingle's API server.")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="serve until SIGTERM")
    serving.add_argument("--system", action="store_true", help="for this whole machine, for its group")
    serving.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    examining = commands.add_parser("doctor", help="check what a server needs of this host; changes nothing")
    examining.add_argument("--system", action="store_true", help="the server of this whole machine")
    examining.add_argument("--json", action="store_true")
    checking = commands.add_parser("config", help="check what is to be a configuration file, given on stdin")
    checking.add_argument("--system", action="store_true", help="that of the server of this whole machine")
    arguments = parser.parse_args(argv)
    try:
        settings = _settings(arguments)
    except IngleError as error:
        return _complain(error, _CONFIG_ERROR)
    if arguments.command != "serve":
        return doctor.main(settings, as_json=arguments.json) if arguments.command == "doctor" else 0
    logs.set_up(arguments.log_level, settings.paths.state / "server.log")
    faulthandler.enable()  # a watchdog's SIGABRT, say: where it stood
    try:
        _raise_limit()
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(serve(settings, engines))
    except Conflict as error:
        return _complain(error, _ALREADY_SERVED)
    except IngleError as error:
        return _complain(error, 1)
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _complain(exhaustion(error) or HostProblem(Reason.INTERNAL, said, "ingle doctor"), 1)
    return 0


def _settings(arguments: argparse.Namespace) -> config.Config:
    """Of this environment; or those of a file by itself, for which what variables say besides is nothing. Raises
    InvalidArgument."""
    if arguments.command != "config":
        return config.load(os.environ, system=arguments.system)
    env = {key: value for key, value in os.environ.items() if not key.startswith("INGLE_")}
    return config.load(env, system=arguments.system, text=sys.stdin.buffer.read())


def _raise_limit() -> None:
    raise_limit()
    if most_descriptors() < LEAST:
        what = f"the server needs {LEAST} file descriptors at least, and may have {most_descriptors()}"
        raise HostProblem(Reason.HOST_EXHAUSTED, what, "start it where `ulimit -Hn` says more")


def _new_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    if sys.version_info < (3, 12):  # which choose it by themselves
        # The default child watcher starts a thread a child; this one costs a file descriptor.
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(loop)
        asyncio.set_child_watcher(watcher)
    return loop


def _complain(error: IngleError, code: int) -> int:
    sys.stderr.write(f"ingle-server: {error.message}\n")
    if error.remedy:
        sys.stderr.write(f"  try: {error.remedy}\n")
    return code

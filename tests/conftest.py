"""What holds for all tests."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

# Tests fork, for pseudo-terminals, while gRPC's threads are at work here; its fork handlers crash such a child before
# it becomes another program. Read when grpc is loaded, so it is set before any test is.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# A shell has its background jobs ignore these, and what is ignored is inherited: commands that a test interrupts, too.
for _number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number is signal.SIGINT else signal.SIG_DFL)

_PREPARED = "INGLE_TESTS_PREPARED"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--prepared",
        metavar="DIR",
        help="keep kernel and image in DIR, or take them from there: a minute less for each later run",
    )
    parser.addoption("--slow", action="store_true", help="run the long variants of tests that race as well")
    parser.addoption(
        "--lab-logs",
        metavar="DIR",
        default=str(Path(__file__).parents[1] / "build/lab"),
        help="where what the lab says is kept (default: %(default)s)",
    )
    parser.addoption(
        "--lab-coverage",
        metavar="DIR",
        help="measure what runs of ingle in the lab, and put coverage's data files into DIR",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Processes that share the tests share what is prepared for them."""
    if config.option.prepared is None:
        if _PREPARED not in os.environ:
            directory = tempfile.TemporaryDirectory(prefix="ingle-prepared-")
            config.add_cleanup(directory.cleanup)
            os.environ[_PREPARED] = directory.name
        config.option.prepared = os.environ[_PREPARED]

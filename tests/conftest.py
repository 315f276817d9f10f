"""What holds for all tests."""

import os
import signal
import tempfile
import traceback
from collections.abc import Generator
from pathlib import Path

import pytest

# Tests fork, for pseudo-terminals, while gRPC's threads are at work here; its fork handlers crash such a child before
# it becomes another program. Read when grpc is loaded, so it is set before any test is.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"


def _survive(_number: int, _frame: object) -> None:
    """A signal that was ignored when we began stays without effect here."""


# What nohup or a shell's background job ignores is inherited by what a test starts and sends signals to; a handler is
# not. Python itself ignores two, and has its children heed them.
for _number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else _survive)

# Guests that boot behind a test's back take what others need, and are found where nothing may be left: tests that are
# about them say so.
os.environ["INGLE_WARM"] = "false"

_PREPARED = "INGLE_TESTS_PREPARED"

_TEST_SECONDS = 900
"""The slowest takes a minute or two. One that hangs is to fail, and not to keep all the others from being run."""


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure that can't be shown is one failure: the tests behind it run all the same."""
    try:
        return (yield)
    except Exception as error:
        assert call.when != "collect"
        shown = "".join(traceback.format_exception(error))
        return pytest.TestReport(
            item.nodeid,
            item.location,
            dict.fromkeys(item.keywords, 1),
            "failed",
            shown,
            call.when,
            duration=call.duration,
        )


def pytest_configure(config: pytest.Config) -> None:
    """Processes that share the tests share what is prepared for them."""
    if config.pluginmanager.hasplugin("timeout") and config.option.timeout is None and not config.option.slow:
        config.option.timeout = _TEST_SECONDS
    if config.option.prepared is None:
        if _PREPARED not in os.environ:
            directory = tempfile.TemporaryDirectory(prefix="ingle-prepared-")
            config.add_cleanup(directory.cleanup)
            os.environ[_PREPARED] = directory.name
        config.option.prepared = os.environ[_PREPARED]

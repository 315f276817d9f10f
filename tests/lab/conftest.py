"""Tests below inside/ are collected here, as any others, and run in the lab: a Debian under QEMU that has KVM,
device-mapper, tun, nftables, vhost-vsock and systemd. What they report there becomes their outcome here."""

import faulthandler
from pathlib import Path
from typing import Any

import pytest

from lab.machine import LabDiedError
from lab.run import Run

_INSIDE = Path(__file__).parent / "inside"
_TUPLES = {"location", "longrepr"}


class Host:
    """The host's side: one lab for all tests of a session, started for the first of them.

    A lab that dies is replaced, once: an emulated kernel breaks now and then by itself, a test that breaks it does so
    again."""

    def __init__(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        self._config = config
        self._node_ids = [item.nodeid for item in items]
        self._run: Run | None = None
        self._replaced = False
        self._failure = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if not is_inside(item):
            return None
        # pytest's own limit is for tests here; a boot may take longer, and the run has a limit of its own.
        faulthandler.cancel_dump_traceback_later()
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        if item.nodeid == self._node_ids[-1]:
            self.pytest_unconfigure()
        return True

    def pytest_unconfigure(self) -> None:
        if self._run is not None:
            self._run.close()
            self._run = None

    def _reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        if self._failure:
            return [_failed(item, f"not run: {self._failure}")]
        try:
            return self._tried(item)
        except LabDiedError as error:
            if not self._replaced:
                self._say(f"{error}\nanother one goes on from {item.nodeid}")
                self._replaced = True
                self.pytest_unconfigure()
                return self._reports(item)
            return [self._broken(item, error)]
        except Exception as error:
            return [self._broken(item, error)]

    def _tried(self, item: pytest.Item) -> list[pytest.TestReport]:
        if self._run is None:
            self._start(self._node_ids[self._node_ids.index(item.nodeid) :])
        assert self._run is not None
        return [self._report(data) for data in self._run.reports(item.nodeid)]

    def _broken(self, item: pytest.Item, error: Exception) -> pytest.TestReport:
        """Nothing in there can be relied on any more; the first of its tests says why."""
        self._failure = str(error).splitlines()[0]
        return _failed(item, str(error))

    def _report(self, data: dict[str, Any]) -> pytest.TestReport:
        # JSON has no tuples; a skip's reason must be one.
        tuples = {name: tuple(value) for name, value in data.items() if name in _TUPLES and type(value) is list}
        report: pytest.TestReport = self._config.hook.pytest_report_from_serializable(
            config=self._config, data=data | tuples
        )
        return report

    def _start(self, node_ids: list[str]) -> None:
        option = self._config.option
        self._run = Run(option.lab_logs, option.lab_coverage, self._say)
        local = ["--showlocals"] if option.showlocals else []
        slow = ["--slow"] if option.slow else []
        self._run.start(node_ids, [f"--tb={option.tbstyle}", *local, *slow])

    def _say(self, text: str) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(f"lab: {text}")


def is_inside(item: pytest.Item) -> bool:
    """Whether it is a test that runs in the lab."""
    return item.path.is_relative_to(_INSIDE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The lab's tests, and those of the lab itself, run when they are asked for: `make lab`."""
    unasked = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return True if collection_path.parent == _INSIDE.parent and unasked else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)


def pytest_collection_finish(session: pytest.Session) -> None:
    items = [item for item in session.items if is_inside(item)]
    if items and not session.config.option.collectonly and not session.config.pluginmanager.hasplugin("lab-reporter"):
        session.config.pluginmanager.register(Host(session.config, items), "lab-host")


def _place(item: pytest.Item) -> int:
    """Last what runs in the lab. Where ingle is once installed for the whole machine, it stays: what needs a machine
    without it comes before."""
    if not is_inside(item):
        return 0
    return 2 if "member" in getattr(item, "fixturenames", ()) else 1


def _failed(item: pytest.Item, why: str) -> pytest.TestReport:
    return pytest.TestReport(item.nodeid, item.location, {}, "failed", why, "call")

"""Tests below inside/ are collected here, as any others, and run in the lab: a Debian under QEMU that has KVM,
device-mapper, tun, nftables, vhost-vsock and systemd. What they report there becomes their outcome here."""

import faulthandler
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab import disk, payload
from lab.lab import Lab
from lab.run import Run

_INSIDE = Path(__file__).parent / "inside"
_LABS = ("bare", "installed")
_TAKES_THE_PACKAGE = ("/test_deb.py", "_debian_package_")
_TUPLES = {"location", "longrepr"}


class Host:
    """The host's side: one lab for the tests that want a machine without ingle, one for those that use an installed
    one. They begin together, with the first test of either."""

    def __init__(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        self._config = config
        self._node_ids: dict[str, list[str]] = {}
        for item in items:
            self._node_ids.setdefault(_lab_of(item), []).append(item.nodeid)
        self._pool = ThreadPoolExecutor(1 + len(self._node_ids))
        self._labs: dict[str, Lab] = {}

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
        return True

    def pytest_unconfigure(self) -> None:
        for lab in self._labs.values():
            lab.close()

    def _reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        try:
            if not self._labs:
                self._begin()
            return [self._report(data) for data in self._labs[_lab_of(item)].reports(item.nodeid)]
        except Exception as error:
            return [pytest.TestReport(item.nodeid, item.location, {}, "failed", str(error), "call")]

    def _report(self, data: dict[str, Any]) -> pytest.TestReport:
        # JSON has no tuples; a skip's reason must be one.
        tuples = {name: tuple(value) for name, value in data.items() if name in _TUPLES and type(value) is list}
        deserialize = self._config.hook.pytest_report_from_serializable
        report: pytest.TestReport = deserialize(config=self._config, data=data | tuples)
        return report

    def _begin(self) -> None:
        option = self._config.option
        options = [
            f"--tb={option.tbstyle}",
            *(["--showlocals"] if option.showlocals else []),
            *(["--slow"] if option.slow else []),
        ]
        prepared = self._pool.submit(self._prepare)

        def begin(name: str, node_ids: Sequence[str]) -> Run:
            coverage = None if option.lab_coverage is None else Path(option.lab_coverage)
            run = Run(Path(option.lab_logs, name), coverage, lambda text: self._say(f"{name}: {text}"))
            try:
                run.start(*prepared.result(), node_ids, options)
            except BaseException:
                run.close()
                raise
            return run

        for name, node_ids in self._node_ids.items():
            self._labs[name] = Lab(node_ids, partial(begin, name), self._pool, self._say)

    def _prepare(self) -> tuple[Path, bytes]:
        """The directory of the lab's disk, and an archive with what goes into each lab."""
        image = disk.cached(self._say)
        cache = Path(self._config.option.lab_logs)
        cache.mkdir(parents=True, exist_ok=True)
        self._say("building the wheel")
        wheel = payload.wheel(cache)
        wanted = [node_id for node_ids in self._node_ids.values() for node_id in node_ids]
        if not any(sign in node_id for node_id in wanted for sign in _TAKES_THE_PACKAGE):
            return image, payload.archive(wheel)
        self._say("building the Debian package")
        return image, payload.archive(wheel, payload.package(cache, wheel))

    def _say(self, text: str) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(f"lab: {text}")


def is_inside(item: pytest.Item) -> bool:
    """Whether it is a test that runs in the lab."""
    return item.path.is_relative_to(_INSIDE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)


def pytest_collection_finish(session: pytest.Session) -> None:
    items = [item for item in session.items if is_inside(item)]
    if items and not session.config.option.collectonly and not session.config.pluginmanager.hasplugin("lab-reporter"):
        session.config.pluginmanager.register(Host(session.config, items), "lab-host")


def _place(item: pytest.Item) -> tuple[int, str]:
    """In the order of their files, whichever way they were named: the last of the installed lab's removes ingle."""
    return (("", *_LABS).index(_lab_of(item)), item.path.name) if is_inside(item) else (0, "")


def _lab_of(item: pytest.Item) -> str:
    """Where ingle is once installed for the whole machine, it stays: what needs a machine without it has another."""
    return "installed" if "member" in getattr(item, "fixturenames", ()) else "bare"

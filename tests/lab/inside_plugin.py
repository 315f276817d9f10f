"""pytest, in the lab: runs the tests it is told, and tells the host about each, as lines of JSON on descriptor 3.

{"report": …}         a phase of a test, as pytest serializes it
{"finished": nodeid}  all phases of it were reported
{"broken": text}      a module could not be collected
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

NODE_IDS = "INGLE_LAB_NODE_IDS"
"""The environment variable that names a file with the tests to run, a JSON array of node ids."""

_REPORT_FD = 3


def pytest_configure(config: pytest.Config) -> None:
    os.set_inheritable(_REPORT_FD, False)
    config.pluginmanager.register(_Reporter(config), "lab-reporter")


class _Reporter:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._wanted: list[str] = json.loads(Path(os.environ[NODE_IDS]).read_text())

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        found = {item.nodeid: item for item in items}
        items[:] = [found[node_id] for node_id in self._wanted if node_id in found]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._tell(broken=report.longreprtext)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._tell(report=data)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._tell(finished=nodeid)

    def _tell(self, **message: Any) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(_REPORT_FD, data) :]

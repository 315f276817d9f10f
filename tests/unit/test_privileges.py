"""docs/privileges.md says what the units say, all of it and no more, and names tests that there are."""

import re
from pathlib import Path

import pytest

from ingle.cli.system.hardening import settings_of
from ingle.host_helper.capabilities import DEVICES, NETWORK, Capability

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = (REPOSITORY / "docs/privileges.md").read_text()
UNITS = [path.name for path in sorted((REPOSITORY / "deploy").glob("*.service"))]
RIGHTS = re.compile(r"CAP_[A-Z_]+|AF_[A-Z0-9]+|/dev/[\w/-]+|block-[\w-]+")


def listed(unit: str) -> set[str]:
    """In the first column of what is said of a unit."""
    (section,) = re.findall(rf"^### `{re.escape(unit)}`\n(.*?)^##", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return {right for cell in cells if not cell.strip().startswith("writes") for right in RIGHTS.findall(cell)}


def asked(unit: str) -> set[str]:
    settings = settings_of((REPOSITORY / "deploy" / unit).read_text())
    words = " ".join([*settings["CapabilityBoundingSet"], *settings["RestrictAddressFamilies"]]).split()
    return {*words, *(line.split()[0] for line in settings["DeviceAllow"])}


@pytest.mark.parametrize("unit", UNITS)
def test_every_right_of_a_unit_has_its_line(unit: str) -> None:
    assert asked(unit) <= listed(unit)


def test_no_right_is_listed_that_no_unit_has_any_more() -> None:
    assert {right for unit in UNITS for right in listed(unit)} == {right for unit in UNITS for right in asked(unit)}


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_writes_nowhere_that_is_not_listed(unit: str) -> None:
    settings = settings_of((REPOSITORY / "deploy" / unit).read_text())
    paths = " ".join(settings.get("ReadWritePaths", [])).replace("-/", "/").split()
    below = {"RuntimeDirectory": "/run", "StateDirectory": "/var/lib", "CacheDirectory": "/var/cache"}
    paths += [f"{root}/{settings[name][0]}" for name, root in below.items() if name in settings]
    (section,) = re.findall(rf"^### `{re.escape(unit)}`\n(.*?)^##", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    (row,) = (line for line in section.splitlines() if line.startswith("| writes to"))
    assert [path for path in paths if f"`{path}`" not in row] == []


@pytest.mark.parametrize(("unit", "kept"), [("ingle-helper.service", NETWORK), ("ingle-helper-dm.service", DEVICES)])
def test_a_helper_keeps_what_its_unit_gives_it(unit: str, kept: frozenset[Capability]) -> None:
    settings = settings_of((REPOSITORY / "deploy" / unit).read_text())
    assert set(settings["CapabilityBoundingSet"][0].split()) == set(map(str, kept))


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", DOCUMENT)
    assert len(named) == DOCUMENT.count("::") > 30
    absent = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^(async )?def {test}\(", (REPOSITORY / "tests" / file).read_text(), flags=re.MULTILINE)
    ]
    assert absent == []


def test_every_unit_is_in_the_document() -> None:
    assert len(UNITS) == 3
    assert all(f"### `{unit}`" in DOCUMENT for unit in UNITS)

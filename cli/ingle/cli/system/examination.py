"""What a doctor finds of a system install from outside of its server: units, files, and the rights that units have."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ingle.cli.errors import CliError
from ingle.cli.findings import Check
from ingle.cli.system.files import DEVICES_UNIT, ManagedFile
from ingle.cli.system.hardening import (
    Settings,
    call_groups,
    mentions,
    properties_of,
    restrictions,
    settings_of,
    weaknesses,
)
from ingle.cli.system.installation import FoundFile, System
from ingle.cli.system.manager import Systemd, UnitState

_FRAGMENT, _DROP_INS, _OUTDATED = "FragmentPath", "DropInPaths", "NeedDaemonReload"


def install_checks(systemd: Systemd) -> list[Check]:
    """Every one of them; where nothing can be asked, one that says so."""
    try:
        installed = System(systemd).installed()
        groups = call_groups(systemd.call_groups())
        by_name = {found.file.path.name: found.file for found in installed.files}
        units = [check for unit in installed.units for check in _unit_checks(systemd, unit, by_name[unit.unit], groups)]
    except CliError as error:
        failure = error.failures[0]
        return [Check("install", "warn", failure.message, failure.remedy)]
    return [*units, drift_check(installed.drift, installed.layout.mending)]


def drift_check(drift: Iterable[FoundFile], mending: str) -> Check:
    """`drift`: files that are not as this version would write them; `mending`: what writes them."""
    changed = [f"{found.file.path} ({found.condition.value})" for found in drift]
    if not changed:
        return Check("files", "pass", "all are as this version writes them")
    return Check("files", "warn", f"not as this version writes them: {', '.join(changed)}", mending)


def _unit_checks(
    systemd: Systemd, unit: UnitState, file: ManagedFile, groups: Mapping[str, frozenset[str]]
) -> list[Check]:
    asked = settings_of(file.content)
    names = restrictions(asked)
    found = properties_of(systemd.properties(unit.unit, [_FRAGMENT, _DROP_INS, _OUTDATED, *names]))
    return [running_check(unit), rights_check(unit.unit, file, asked, found, groups)]


def running_check(unit: UnitState) -> Check:
    """Without the one for disks, VMs have other disks."""
    if unit.active == "active":
        return Check(unit.unit, "pass", f"{unit.active} ({unit.sub})")
    status = unit.active or unit.loaded
    return Check(
        unit.unit,
        "warn" if unit.unit == DEVICES_UNIT else "fail",
        f"{status} ({unit.sub})",
        f"sudo systemctl restart {unit.unit}; journalctl -u {unit.unit} -n 20",
    )


def rights_check(
    unit: str, file: ManagedFile, asked: Settings, found: Settings, groups: Mapping[str, frozenset[str]]
) -> Check:
    """Whether systemd gives `unit` the rights that its `file` asks for, and no more."""
    name = f"rights of {unit}"
    fragment, outdated = "".join(found.get(_FRAGMENT, ())), "".join(found.get(_OUTDATED, ()))
    # Of one directory systemd may know another name: /lib, on Debian, for /usr/lib.
    if fragment and Path(fragment).resolve() != file.path.resolve():
        return Check(name, "warn", f"{fragment} takes the place of {file.path}", f"sudo rm {fragment}; {_AGAIN}")
    weak = weaknesses(asked, found, groups)
    if weak:
        drop_ins = [Path(word) for word in " ".join(found.get(_DROP_INS, ())).split()]
        guilty = [each for each in drop_ins if any(mentions(each, weakness.name) for weakness in weak)]
        told = "; ".join(f"{weakness.name} gives {weakness.more}" for weakness in weak)
        by = f", by {' and '.join(map(str, guilty))}" if guilty else ""
        remedy = f"sudo rm {' '.join(map(str, guilty))}; {_AGAIN}" if guilty else f"{file.layout.mending}; {_AGAIN}"
        return Check(name, "warn", f"more than it asks for: {told}{by}", remedy)
    if outdated == "yes":
        return Check(name, "warn", "its files have changed since systemd read them", _AGAIN)
    return Check(name, "pass", f"no more than it asks for, by {len(restrictions(asked))} restrictions")


_AGAIN = "sudo systemctl daemon-reload; sudo ingle system restart"

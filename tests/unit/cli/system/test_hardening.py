"""What a unit was asked to restrict, compared with what `systemctl show` prints; the lab has a real systemd for it."""

from pathlib import Path

import pytest

from ingle.cli.findings import Check
from ingle.cli.system.examination import drift_check, rights_check, running_check
from ingle.cli.system.files import BY_COMMAND, UNITS, Condition, ManagedFile, managed_files
from ingle.cli.system.hardening import Weakness, call_groups, properties_of, restrictions, settings_of, weaknesses
from ingle.cli.system.installation import FoundFile
from ingle.cli.system.manager import UnitState

LISTING = """\
@default
    # System calls that are always permitted
    futex
    read

@file-system
    # File system operations
    open

@resources
    # Alter resource settings
    setpriority

@system-service
    # General system service operations
    @default
    @file-system
    @resources
    write

# Ungrouped System Calls (known but not included in any of the groups except @known):
#   bpf
"""
GROUPS = call_groups(LISTING)
UNIT = """\
# a comment
[Unit]
CapabilityBoundingSet=CAP_SYS_ADMIN
[Service]
ExecStart=/bin/true
CapabilityBoundingSet=CAP_NET_ADMIN CAP_CHOWN
NoNewPrivileges=yes
DeviceAllow=/dev/net/tun rw
DeviceAllow=/dev/kvm rw
RestrictAddressFamilies=AF_UNIX
SystemCallFilter=@system-service seccomp
SystemCallFilter=~@resources
IPAddressDeny=any
[Install]
WantedBy=multi-user.target
"""
SHOWN = """\
CapabilityBoundingSet=cap_chown cap_net_admin
NoNewPrivileges=yes
DeviceAllow=/dev/kvm rw
DeviceAllow=/dev/net/tun rw
RestrictAddressFamilies=AF_UNIX
SystemCallFilter=futex open read seccomp write setpriority:EPERM
IPAddressDeny=::/0 0.0.0.0/0
FragmentPath=/etc/systemd/system/x.service
DropInPaths=
NeedDaemonReload=no
"""
PATH = Path("/etc/systemd/system/x.service")


def found_with(name: str, value: str) -> list[Weakness]:
    lines = [line for line in SHOWN.splitlines() if not line.startswith(f"{name}=")]
    shown = "\n".join([*lines, f"{name}={value}"])
    return weaknesses(settings_of(UNIT), properties_of(shown), GROUPS)


def test_only_the_service_section_counts_and_an_empty_value_takes_back() -> None:
    assert settings_of(UNIT)["CapabilityBoundingSet"] == ["CAP_NET_ADMIN CAP_CHOWN"]
    assert settings_of(f"{UNIT}[Service]\nDeviceAllow=\nDeviceAllow=/dev/null r\n")["DeviceAllow"] == [
        "",
        "/dev/null r",
    ]


def test_groups_of_system_calls_are_resolved() -> None:
    assert GROUPS["@system-service"] == {"futex", "read", "open", "setpriority", "write"}


def test_what_is_as_asked_for_has_no_weakness() -> None:
    assert weaknesses(settings_of(UNIT), properties_of(SHOWN), GROUPS) == []


@pytest.mark.parametrize(
    ("name", "value", "more"),
    [
        ("CapabilityBoundingSet", "cap_net_admin cap_sys_admin", "cap_sys_admin"),
        ("NoNewPrivileges", "no", "no instead of yes"),
        ("DeviceAllow", "/dev/mem rw", "/dev/mem rw"),
        ("DeviceAllow", "/dev/net/tun rwm", "/dev/net/tun rwm"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET", "AF_INET"),
        ("RestrictAddressFamilies", "~", "everything but nothing"),
        ("SystemCallFilter", "futex mount bpf", "mount, bpf"),
        ("SystemCallFilter", "futex setpriority", "setpriority"),
        ("SystemCallFilter", "", "any system call"),
        ("SystemCallFilter", "~mount", "any system call but a few"),
        ("SystemCallFilter", "a b c d e f", "a, b, c, d and 2 more"),
        ("IPAddressDeny", "", "0.0.0.0/0, ::/0 can be reached"),
    ],
)
def test_a_weakness_says_what_it_allows(name: str, value: str, more: str) -> None:
    assert found_with(name, value) == [Weakness(name, more)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("CapabilityBoundingSet", ""), ("CapabilityBoundingSet", "cap_chown"), ("SystemCallFilter", "futex read")],
)
def test_less_than_was_asked_for_is_no_weakness(name: str, value: str) -> None:
    assert found_with(name, value) == []


def test_every_line_of_our_units_that_restricts_is_looked_at() -> None:
    """A new one is a restriction unless hardening.py says otherwise."""
    for file in managed_files(Path("/opt/ingle"), "ingle"):
        if file.path.name in UNITS:
            looked_at = restrictions(settings_of(file.content))
            assert {"NoNewPrivileges", "CapabilityBoundingSet", "SystemCallFilter", "DeviceAllow"} <= set(looked_at)
            assert len(looked_at) > 20


def checked(shown: str, unit: str = UNIT) -> Check:
    return rights_check(
        "x.service", ManagedFile(PATH, unit, BY_COMMAND), settings_of(unit), properties_of(shown), GROUPS
    )


def test_the_drop_in_that_does_it_is_named_and_others_are_not(tmp_path: Path) -> None:
    guilty, innocent = tmp_path / "guilty.conf", tmp_path / "innocent.conf"
    guilty.write_text("[Service]\nNoNewPrivileges=no\n")
    innocent.write_text("[Service]\nNice=5\n")
    shown = SHOWN.replace("NoNewPrivileges=yes", "NoNewPrivileges=no")
    check = checked(shown.replace("DropInPaths=", f"DropInPaths={innocent} {guilty}"))
    assert check.status == "warn"
    assert check.detail == f"more than it asks for: NoNewPrivileges gives no instead of yes, by {guilty}"
    assert check.remedy == f"sudo rm {guilty}; sudo systemctl daemon-reload; sudo ingle system restart"
    assert checked(shown).remedy.startswith("sudo ingle system install; ")


def test_what_systemd_has_not_read_yet_and_a_unit_in_anothers_place_are_told() -> None:
    assert checked(SHOWN).status == "pass"
    assert checked(SHOWN.replace("NeedDaemonReload=no", "NeedDaemonReload=yes")).remedy.startswith("sudo systemctl")
    check = checked(SHOWN.replace(str(PATH), "/run/systemd/system/x.service"))
    assert check.detail == f"/run/systemd/system/x.service takes the place of {PATH}"


def test_drift_names_each_file_and_how_it_is() -> None:
    file = ManagedFile(Path("/etc/some.conf"), BY_COMMAND.mark, BY_COMMAND)
    assert drift_check([], BY_COMMAND.mending).status == "pass"
    check = drift_check([FoundFile(file, Condition.MISSING)], BY_COMMAND.mending)
    assert (check.status, check.remedy) == ("warn", "sudo ingle system install")
    assert "/etc/some.conf (missing)" in check.detail


@pytest.mark.parametrize(
    ("unit", "active", "status"),
    [
        ("ingle.service", "active", "pass"),
        ("ingle.service", "failed", "fail"),
        ("ingle-helper.service", "inactive", "fail"),
        ("ingle-helper-dm.service", "inactive", "warn"),
    ],
)
def test_a_unit_that_does_not_run_is_told(unit: str, active: str, status: str) -> None:
    check = running_check(UnitState(unit, "loaded", active, "dead", "enabled"))
    assert check.status == status
    assert (f"systemctl restart {unit}" in check.remedy) == (status != "pass")


def test_another_name_of_a_units_directory_takes_nobodys_place(tmp_path: Path) -> None:
    """Debian's systemd says /lib/systemd/system, which is a link, where its packages have /usr/lib/systemd/system."""
    (tmp_path / "usr").mkdir()
    (tmp_path / "lib").symlink_to("usr")
    file = ManagedFile(tmp_path / "usr/x.service", UNIT, BY_COMMAND)
    shown = properties_of(SHOWN.replace(str(PATH), str(tmp_path / "lib/x.service")))
    assert rights_check("x.service", file, settings_of(UNIT), shown, GROUPS).status == "pass"

"""The doctor of a system install, on a machine where one thing after the other is really broken: what it says to type
mends it."""

import json
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingle.cli.findings import Check
from ingle.cli.system.examination import install_checks
from ingle.cli.system.manager import Systemd
from lab.inside.commands import User, lab_run
from slow import slow

DROP_INS = Path("/etc/systemd/system")
HELPER, DEVICES, SERVER = "ingle-helper.service", "ingle-helper-dm.service", "ingle.service"


def examined(user: User, code: int = 0) -> dict[str, Check]:
    """By the command, as its caller gets it."""
    report = json.loads(user.run("ingle", "doctor", "--json", code=code))
    return {check["name"]: Check(**check) for check in report["checks"]}


def install() -> dict[str, Check]:
    """What is seen from outside of the server, without asking that."""
    return {check.name: check for check in install_checks(Systemd())}


def type_in(remedy: str) -> None:
    lab_run("sh", "-ec", remedy)


def unwell(checks: dict[str, Check]) -> list[str]:
    found = [check for check in checks.values() if check.status != "pass"]
    print(*found, sep="\n")  # noqa: T201 - shown when a test fails
    return [check.name for check in found]


@pytest.fixture
def drop_in(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file beside a unit, gone after the test."""
    path = DROP_INS / f"{request.param}.d" / "theirs.conf"
    path.parent.mkdir()
    yield path
    path.unlink(missing_ok=True)
    path.parent.rmdir()
    lab_run("systemctl", "daemon-reload")


def test_all_is_well_after_an_install(member: User) -> None:
    checks = examined(member)
    assert unwell(checks) == []
    by_server = {"network helper", "taps", "pools", "firewall", "forwarding", "disk helper"}
    assert {"group", "files", "server", *by_server} <= set(checks)
    for unit in (HELPER, DEVICES, SERVER):
        assert checks[unit].detail == "active (running)"
        assert "no more than it asks for" in checks[f"rights of {unit}"].detail
    shown = member.run("ingle", "doctor")
    # The second one once a guest has booted, as other tests' have.
    assert "pass  kvm: /dev/kvm makes VMs" in shown or "pass  kvm: guests run by kvm" in shown
    assert "SETTING" in shown


@pytest.mark.parametrize(
    ("drop_in", "weaker"),
    [
        (
            HELPER,
            {
                "CapabilityBoundingSet=CAP_SYS_ADMIN": "cap_sys_admin",
                "NoNewPrivileges=no": "no instead of yes",
                "ProtectSystem=full": "full instead of strict",
                "ReadWritePaths=/etc": "/etc",
                "DeviceAllow=/dev/kmsg rw": "/dev/kmsg rw",
                "RestrictAddressFamilies=AF_INET": "AF_INET",
                "RestrictNamespaces=no": "no instead of yes",
                "SystemCallArchitectures=": "nothing instead of native",
                "SystemCallFilter=mount": "mount",
            },
        ),
        (
            DEVICES,
            {
                "MemoryDenyWriteExecute=no": "no instead of yes",
                "RestrictAddressFamilies=": "everything but nothing",
                "IPAddressDeny=": "0.0.0.0/0, ::/0 can be reached",
                "PrivateNetwork=no": "no instead of yes",
                "SystemCallFilter=": "any system call",
            },
        ),
        (
            SERVER,
            {
                "User=root": "root instead of ingle",
                "SupplementaryGroups=disk": "disk",
                "UMask=0000": "0000 instead of 0077",
                "KillMode=control-group": "control-group instead of process",
                "CapabilityBoundingSet=CAP_NET_ADMIN": "cap_net_admin",
            },
        ),
    ],
    indirect=["drop_in"],
    ids=[HELPER, DEVICES, SERVER],
)
def test_a_drop_in_that_weakens_a_unit_is_named(member: User, drop_in: Path, weaker: dict[str, str]) -> None:
    drop_in.write_text("[Service]\n" + "\n".join(weaker))
    lab_run("systemctl", "daemon-reload")
    checks = install()
    name = f"rights of {drop_in.parent.name.removesuffix('.d')}"
    assert unwell(checks) == [name]
    what, _, by = checks[name].detail.removeprefix("more than it asks for: ").rpartition(", by ")
    told = {f"{setting.partition('=')[0]} gives {more}" for setting, more in weaker.items()}
    assert (set(what.split("; ")), by) == (told, str(drop_in))


@slow
@pytest.mark.parametrize("drop_in", [HELPER], indirect=True)
def test_a_drop_in_is_found_by_an_ordinary_user_and_gone_when_what_is_told_is_typed(
    member: User, drop_in: Path
) -> None:
    drop_in.write_text("[Service]\nNice=5\n")
    lab_run("systemctl", "daemon-reload")
    drop_in.write_text("[Service]\nNoNewPrivileges=no\n")
    assert install()[f"rights of {HELPER}"].detail == "its files have changed since systemd read them"
    lab_run("systemctl", "daemon-reload")
    check = examined(member)[f"rights of {HELPER}"]
    assert (check.status, str(drop_in) in check.detail) == ("warn", True)
    type_in(check.remedy)
    assert unwell(examined(member)) == []


@pytest.mark.parametrize("drop_in", [HELPER], indirect=True)
def test_a_drop_in_that_takes_nothing_away_is_fine(member: User, drop_in: Path) -> None:
    drop_in.write_text("[Service]\nCapabilityBoundingSet=\nCapabilityBoundingSet=CAP_NET_ADMIN\nNice=5\n")
    lab_run("systemctl", "daemon-reload")
    assert unwell(install()) == []


@slow
def test_a_file_that_was_changed_is_named(member: User) -> None:
    path = Path("/etc/tmpfiles.d/ingle.conf")
    path.write_text(path.read_text() + "d /run/theirs\n")
    check = examined(member)["files"]
    assert (check.status, f"{path} (different)" in check.detail) == ("warn", True)
    type_in(check.remedy)
    assert unwell(examined(member)) == []


def test_a_server_that_does_not_run_is_a_failure(member: User) -> None:
    lab_run("systemctl", "stop", SERVER)
    checks = examined(member, code=1)
    assert unwell(checks) == [SERVER, "server"]
    assert (checks["server"].status, checks[SERVER].status) == ("fail", "fail")
    type_in(checks[SERVER].remedy)
    assert unwell(examined(member)) == []


@slow
def test_a_network_helper_that_does_not_run_is_a_failure_and_one_for_disks_is_none(member: User) -> None:
    lab_run("systemctl", "stop", HELPER, DEVICES)
    checks = examined(member, code=1)
    assert unwell(checks) == [HELPER, DEVICES, "network helper", "disk helper"]
    assert (checks[HELPER].status, checks["network helper"].status) == ("fail", "fail")
    type_in(checks["network helper"].remedy)
    checks = examined(member)
    assert unwell(checks) == [DEVICES, "disk helper"]
    type_in(checks["disk helper"].remedy)
    assert unwell(examined(member)) == []


def test_a_kernel_without_device_mapper_is_told(member: User) -> None:
    lab_run("systemctl", "stop", DEVICES)
    lab_run("modprobe", "--remove", "dm_snapshot", "dm_zero", "dm_mod")
    check = examined(member)["device-mapper"]
    assert check.status == "warn"
    type_in(check.remedy)
    assert unwell(examined(member)) == []


@slow
def test_a_kvm_that_the_servers_user_may_not_open_is_told(member: User) -> None:
    os.chown("/dev/kvm", 0, 0)
    check = examined(member)["kvm"]
    assert (check.status, "Permission denied" in check.detail) == ("warn", True)
    type_in(check.remedy)
    assert unwell(examined(member)) == []


def test_firewalls_in_the_way_are_found_with_the_three_capabilities_that_the_helper_has(member: User) -> None:
    chain = "add chain inet theirs forward { type filter hook forward priority 0; policy drop; }"
    lab_run("nft", f"add table inet theirs; {chain}")
    try:
        check = examined(member)["firewall"]
        assert check.status == "warn"
        type_in(check.remedy)
        assert unwell(examined(member)) == []
        lab_run("iptables-legacy", "-P", "FORWARD", "DROP")
        check = examined(member)["firewall"]
        assert (check.status, "iptables-legacy has a filter table" in check.detail) == ("warn", True)
        type_in(check.remedy)
    finally:
        lab_run("nft", "delete", "table", "inet", "theirs")
        lab_run("iptables-legacy", "-P", "FORWARD", "ACCEPT")
        lab_run("iptables-legacy", "-F")
        lab_run("modprobe", "--remove", "iptable_filter", "ip_tables")
    assert unwell(examined(member)) == []


@slow
def test_a_vpn_with_addresses_of_vms_is_told_and_breaks_none_and_what_is_told_moves_them(member: User) -> None:
    lab_run("ip", "link", "add", "vpn0", "type", "dummy")
    member.run("ingle", "vm", "create", "--name", "early")
    try:
        for command in ("link set vpn0 up", "route add 10.0.0.0/8 dev vpn0"):
            lab_run("ip", *command.split())
        lab_run("systemctl", "restart", HELPER, SERVER)
        check = examined(member)["pools"]
        assert (check.status, "10.0.0.0/8 (vpn0, route) overlaps" in check.detail) == ("warn", True)
        assert check.detail in lab_run("journalctl", "--unit", SERVER, "--output", "cat")
        member.run("ingle", "vm", "exec", "early", "--", "true")
        lab_run("sh", "-ec", check.remedy, code=1)
        assert examined(member)["pools"] == check, "nothing is moved while a VM has an address"
        member.run("ingle", "vm", "stop", "early")
        type_in(check.remedy)
        assert examined(member)["pools"].status == "pass"
        member.run("ingle", "vm", "start", "early")
        told = json.loads(member.run("ingle", "vm", "show", "early", "--json"))
        assert told["address"].startswith("172.30.0.")
    finally:
        member.run("ingle", "vm", "delete", "--force", "early")
        lab_run("ip", "link", "delete", "vpn0")
        lab_run("/opt/ingle/bin/ingle", "system", "restart", "--ip-pool", "10.213.0.0/16")


def examined_with_groups(*groups: str) -> Check:
    """What a process of the user dev is told that has these groups, whatever the account database says by now."""
    entry = pwd.getpwnam("dev")
    ids = ("--reuid", "dev", "--regid", "dev", *(("--groups", ",".join(groups)) if groups else ("--clear-groups",)))
    env = {"HOME": entry.pw_dir, "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": f"{entry.pw_dir}/run"}
    ended = subprocess.run(
        ["setpriv", *ids, "/opt/ingle/bin/ingle", "doctor", "--json"], env=env, capture_output=True, check=False
    )
    (check,) = (each for each in json.loads(ended.stdout)["checks"] if each["name"] == "group")
    return Check(**check)


@slow
def test_who_is_not_in_the_group_or_was_not_at_login_is_told(member: User) -> None:
    check = examined_with_groups()
    assert (check.status, check.remedy) == ("warn", "sudo usermod -aG ingle dev, and log in again")
    type_in(check.remedy.partition(",")[0])
    try:
        check = examined_with_groups()
        assert (check.status, "was not yet when this session began" in check.detail) == ("warn", True)
        assert "newgrp ingle" in check.remedy
        assert examined_with_groups("ingle") == Check("group", "pass", "dev is in ingle")
    finally:
        lab_run("gpasswd", "--delete", "dev", "ingle")

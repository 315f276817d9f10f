"""What docs/privileges.md says of each process, tried: by programs in the place of the units' own, and by other users.

A program that runs where a unit's own would tries everything, and what it could do is what the unit's file asks for."""

import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingle.cli.system.hardening import settings_of
from lab.inside.commands import User, lab_run
from lab.inside.conftest import INGLE

UNITS = ("ingle.service", "ingle-helper.service", "ingle-helper-dm.service")
CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_ADMIN": 21,
    "CAP_MKNOD": 27,
}
"""linux/capability.h"""

PSEUDO_DEVICES = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/ptmx")}
"""What DevicePolicy=closed leaves everybody."""

DEVICE_GROUPS = {"block-loop": r"/dev/loop\d+", "block-device-mapper": r"/dev/(dm-\d+|mapper/(?!control).*)"}

FAMILIES = ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG", "AF_KEY", "AF_CAN")

EVERYBODYS = {"/tmp", "/var/tmp", "/dev/shm"}
"""The first two are the unit's own (PrivateTmp=)."""

WRITES = {
    "ingle.service": {"/run/ingle", "/var/lib/ingle", "/var/cache/ingle"},
    "ingle-helper.service": {"/run/ingle-helper"},
    "ingle-helper-dm.service": {"/run/ingle-helper-dm", "/var/lib/ingle", "/dev"},
}
DIRECTORIES = (
    *("/", "/boot", "/etc", "/etc/ingle", "/etc/systemd/system", "/home", "/home/dev", "/opt/ingle", "/root", "/run"),
    *("/run/systemd/system", "/srv", "/usr", "/usr/local/bin", "/var", "/var/cache", "/var/lib", "/var/log", "/dev"),
    *(path for paths in WRITES.values() for path in paths),
    *EVERYBODYS,
)

TRY_EVERYTHING = """
import ctypes, json, mmap, os, socket, sys
wanted = json.load(open("/run/lab-wanted.json"))
libc = ctypes.CDLL(None, use_errno=True)

def works(what):
    try:
        what()
    except (OSError, ValueError):
        return False
    return True

def opened(path):
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY))

def created(directory):
    path = os.path.join(directory, ".lab-probe")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    os.unlink(path)

def connected(family):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            return socket.socket(getattr(socket, family), kind).close()
        except OSError as error:
            last = error
    raise last

def unshared(flag):
    if libc.unshare(flag) != 0:
        raise OSError(ctypes.get_errno())

def made_setuid():
    path = "/tmp/lab-setuid"
    open(path, "w").close()
    os.chmod(path, 0o4755)

def mounted():
    if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) != 0:
        raise OSError(ctypes.get_errno())

print(json.dumps({
    "status": dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line),
    "devices": [path for path in wanted["devices"] if works(lambda: opened(path))],
    "directories": [path for path in wanted["directories"] if works(lambda: created(path))],
    "families": [family for family in wanted["families"] if works(lambda: connected(family))],
    "namespaces": [flag for flag in wanted["namespaces"] if works(lambda: unshared(flag))],
    "mount": works(mounted),
    "setuid": works(made_setuid),
    "writable code": works(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()),
    "network": os.readlink("/proc/self/ns/net"),
}))
"""
NAMESPACES = {"user": 0x10000000, "mount": 0x20000, "network": 0x40000000, "pid": 0x20000000, "uts": 0x4000000}
"""linux/sched.h"""


def unit_file(unit: str) -> str:
    return Path("/etc/systemd/system", unit).read_text()


def devices() -> list[str]:
    """Every device of this machine, but for those that do something when they are opened."""
    found = (Path(directory) / name for directory, _, names in os.walk("/dev") for name in names)
    special = [str(path) for path in found if stat.S_IFMT(path.lstat().st_mode) in {stat.S_IFCHR, stat.S_IFBLK}]
    return sorted(path for path in special if "watchdog" not in path)


@pytest.fixture(scope="module")
def found(member: User) -> Iterator[dict[str, Any]]:
    """By unit: what a program could do that ran in its place."""
    script, wanted, out = Path("/run/lab-probe.py"), Path("/run/lab-wanted.json"), Path("/run/lab-probe.json")
    script.write_text(TRY_EVERYTHING)
    lists = {"devices": devices(), "directories": DIRECTORIES, "families": FAMILIES}
    wanted.write_text(json.dumps({**lists, "namespaces": list(NAMESPACES.values())}))
    results = {}
    for unit in UNITS:
        probe = Path("/run/systemd/system", f"probe-{unit}")
        run = f"ExecStart=/opt/ingle/bin/python3 {script}\nStandardOutput=truncate:{out}"
        text = re.sub("^ExecStart=.*", run, unit_file(unit), flags=re.MULTILINE)
        probe.write_text(text.replace("Type=notify", "Type=oneshot").replace("Restart=on-failure", "Restart=no"))
        lab_run("systemctl", "daemon-reload")
        ended = subprocess.run(["systemctl", "start", probe.name], check=False)
        said = lab_run("journalctl", "--no-pager", "--unit", probe.name)
        assert ended.returncode == 0, said
        results[unit] = json.loads(out.read_text())
        probe.unlink()
    yield results
    for path in (script, wanted, out):
        path.unlink()
    lab_run("systemctl", "daemon-reload")


def asked(unit: str, name: str) -> list[str]:
    return list(settings_of(unit_file(unit))[name])


def mask(unit: str) -> int:
    return sum(1 << CAPABILITIES[name] for name in " ".join(asked(unit, "CapabilityBoundingSet")).split())


@pytest.mark.parametrize("unit", UNITS)
def test_a_running_unit_has_its_capabilities_and_no_way_to_get_more(member: User, unit: str) -> None:
    pid = lab_run("systemctl", "show", "--value", "--property", "MainPID", unit).strip()
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    root = unit != "ingle.service"
    assert int(status["CapBnd"], 16) == mask(unit)
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == mask(unit)
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    uid = 0 if root else int(lab_run("id", "-u", "ingle"))
    gid = 0 if root else int(lab_run("id", "-g", "ingle"))
    assert status["Uid"].split() == [str(uid)] * 4
    assert status["Gid"].split() == [str(gid)] * 4
    groups = {int(lab_run("getent", "group", name).split(":")[2]) for name in ("kvm", "ingle")}
    assert set(map(int, status["Groups"].split())) <= ({0} if root else groups)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_opens_the_devices_that_are_listed_and_no_others(found: dict[str, Any], unit: str) -> None:
    there, could = devices(), set(found[unit]["devices"])
    names = [line.split()[0] for line in asked(unit, "DeviceAllow")]
    allowed = {path for name in names for path in there if re.fullmatch(DEVICE_GROUPS.get(name, re.escape(name)), path)}
    assert could - PSEUDO_DEVICES == allowed


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_writes_where_it_is_listed_and_nowhere_else(found: dict[str, Any], unit: str) -> None:
    assert set(found[unit]["directories"]) - EVERYBODYS == WRITES[unit]


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_has_sockets_of_the_families_that_are_listed_and_no_others(found: dict[str, Any], unit: str) -> None:
    assert set(found[unit]["families"]) == set(" ".join(asked(unit, "RestrictAddressFamilies")).split())


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_makes_no_namespace_mounts_nothing_and_gains_nothing(found: dict[str, Any], unit: str) -> None:
    assert found[unit]["namespaces"] == []
    assert found[unit]["mount"] is False
    # Where the setuid bit can be set it is without effect for whoever sets it, and PrivateTmp's mount ignores it.
    assert found[unit]["setuid"] is (unit != "ingle.service")
    # TCG makes code as it runs.
    assert found[unit]["writable code"] is (unit == "ingle.service")
    ours = os.readlink("/proc/self/ns/net")
    assert (found[unit]["network"] == ours) is (unit != "ingle-helper-dm.service")


def test_a_vmm_has_the_rights_of_the_server_and_gives_up_some_more(member: User) -> None:
    member.run("ingle", "vm", "create", "--name", "watched")
    try:
        pid = json.loads(member.run("ingle", "vm", "show", "watched", "--json"))["pid"]
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert status["Uid"].split() == [lab_run("id", "-u", "ingle").strip()] * 4
        assert {int(status[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        server = lab_run("systemctl", "show", "--value", "--property", "MainPID", "ingle.service").strip()
        server_status = Path(f"/proc/{server}/status").read_text()
        (filters,) = re.findall(r"Seccomp_filters:\t(\d+)", server_status)
        assert int(status["Seccomp_filters"]) > int(filters), "QEMU has a filter of its own on top"
        assert Path(f"/proc/{pid}/cgroup").read_text() == Path(f"/proc/{server}/cgroup").read_text()
    finally:
        member.run("ingle", "vm", "delete", "--force", "watched")


def test_nobody_but_root_can_change_the_code(member: User) -> None:
    for user in ("ingle", "other", "dev"):
        found = lab_run(
            "runuser", "-u", user, "--", "find", "-H", "/opt/ingle", "/usr/local/bin", "-writable", "!", "-type", "l"
        )
        assert found == "", user


def test_no_file_of_the_install_gives_rights_to_whoever_runs_it(member: User) -> None:
    assert lab_run("find", "/opt/ingle", "-perm", "/6000") == ""
    for directory, _, names in os.walk("/opt/ingle"):
        assert not any(
            "security.capability" in os.listxattr(Path(directory) / name, follow_symlinks=False) for name in names
        )


@pytest.mark.parametrize("user", ["other", "dev"])
@pytest.mark.parametrize(
    "path",
    ["/var/lib/ingle", "/var/lib/ingle/ingle.db", "/var/cache/ingle", "/run/ingle/server", "/run/ingle-helper/journal"],
)
def test_other_users_read_neither_state_nor_sockets(member: User, user: str, path: str) -> None:
    """`other` is in the group, and may use the server; that is all."""
    assert Path(path).exists()
    ended = subprocess.run(["runuser", "-u", user, "--", "ls", path], capture_output=True, text=True, check=False)
    listed = subprocess.run(["runuser", "-u", user, "--", "cat", path], capture_output=True, text=True, check=False)
    assert "Permission denied" in listed.stderr
    assert ended.returncode != 0 or Path(path).is_file()


def test_sockets_have_the_modes_that_are_listed(member: User) -> None:
    def shown(path: str) -> tuple[str, str, str]:
        status = Path(path).stat()
        assert stat.S_ISSOCK(status.st_mode)
        names = lab_run("stat", "--format", "%U %G", path).split()
        return f"{stat.S_IMODE(status.st_mode):04o}", names[0], names[1]

    assert shown("/run/ingle/api.sock") == ("0660", "ingle", "ingle")
    for part in ("", "-dm"):
        assert shown(f"/run/ingle-helper{part}/helper.sock") == ("0660", "root", "ingle")
    listening = lab_run("ss", "--listening", "--numeric", "--tcp", "--udp", "--processes")
    ours = {line.split()[4] for line in listening.splitlines() if re.search("ingle|qemu", line)}
    assert "127.0.0.1:10053" in ours, listening
    gateways = r"10\.213\.\d+\.1|\[fd69:6e67:6c65:\S*:1\]"  # of networks that had VMs
    assert all(re.fullmatch(rf"(127\.0\.0\.1|{gateways}):10053", each) for each in ours), listening


def test_the_command_line_is_an_ordinary_process_of_its_caller(member: User) -> None:
    bare = ("--reuid", "other", "--regid", "other", "--init-groups", "--no-new-privs", "--bounding-set=-all")
    ended = subprocess.run(
        ["setpriv", *bare, INGLE, "doctor"],
        env={"HOME": "/home/other", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pass  network helper" in ended.stdout, ended.stdout + ended.stderr

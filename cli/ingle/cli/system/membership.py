"""Whether the caller may use the system's server, and since when."""

import grp
import os
import pwd
from pathlib import Path

from ingle.cli.findings import Check

_NAME = "group"


def membership_check(runtime: Path) -> Check | None:
    """`runtime` belongs to the group that may; None where there is no system install."""
    try:
        gid = runtime.stat().st_gid
    except OSError:
        return None
    group, user = _group_name(gid), _user_name(os.getuid())
    if os.getuid() == 0:
        return Check(_NAME, "pass", f"root may use the system's server, and the members of {group}")
    if gid in {os.getegid(), *os.getgroups()}:
        return Check(_NAME, "pass", f"{user} is in {group}")
    if gid in _groups_at_next_login(user):
        detail = f"{user} is in {group}, but was not yet when this session began"
        return Check(_NAME, "warn", detail, f"log in again; or, for this shell alone, newgrp {group}")
    detail = f"{user} is not in {group}, so the system's server is not used"
    return Check(_NAME, "warn", detail, f"sudo usermod -aG {group} {user}, and log in again")


def _groups_at_next_login(user: str) -> list[int]:
    try:
        return os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except KeyError:
        return []


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)

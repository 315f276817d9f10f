"""Who comes through the accept gate."""

import asyncio
import grp
import os
import pwd
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ingle.api_server.gate import Callers, open_gate

NOBODY = pwd.getpwnam("nobody")
KNOCK = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
with socket.socket(socket.AF_UNIX) as caller:
    caller.settimeout(10)
    try:
        caller.connect(sys.argv[3])
        caller.send(b"x")
        print(caller.recv(1).decode() or "closed")
    except OSError as error:
        print(type(error).__name__)
"""


def test_only_the_user_itself_is_admitted_without_a_group() -> None:
    callers = Callers(1000)
    assert callers.admit(1000, 1000)
    assert not callers.admit(0, 0)
    assert not callers.admit(1001, 1000)


def test_with_a_group_its_members_and_root_are_admitted() -> None:
    group = next(group for group in grp.getgrall() if group.gr_gid not in {0, NOBODY.pw_gid})
    callers = Callers(1000, group.gr_gid)
    assert callers.admit(0, 0)
    assert callers.admit(NOBODY.pw_uid, group.gr_gid)
    assert not callers.admit(NOBODY.pw_uid, NOBODY.pw_gid)


def test_a_uid_without_an_account_has_the_group_it_came_with() -> None:
    callers = Callers(1000, 54321)
    assert callers.admit(3_000_000_000, 54321)
    assert not callers.admit(3_000_000_000, 1)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
async def test_the_kernel_refuses_strangers_at_the_socket_and_the_gate_those_who_get_past_it() -> None:
    with tempfile.TemporaryDirectory(prefix="ingle-t-") as name:
        root = Path(name)
        root.chmod(0o755)

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read(1))
            writer.close()

        upstream = await asyncio.start_unix_server(echo, root / "up.sock")
        gate = await open_gate(root / "api.sock", root / "up.sock", Callers(os.getuid(), NOBODY.pw_gid))
        try:
            assert stat.S_IMODE((root / "api.sock").stat().st_mode) == 0o660
            assert (root / "api.sock").stat().st_gid == NOBODY.pw_gid
            assert await _knock(root, uid=NOBODY.pw_uid, gid=NOBODY.pw_gid) == "x"
            assert await _knock(root, uid=12345, gid=12345) == "PermissionError"
            # Of the group by the kernel's word, of no group by that of the account database: the mode was loosened.
            (root / "api.sock").chmod(0o666)
            assert await _knock(root, uid=12345, gid=12345) in {"closed", "ConnectionResetError", "BrokenPipeError"}
        finally:
            gate.close()
            upstream.close()


async def _knock(root: Path, *, uid: int, gid: int) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KNOCK, str(uid), str(gid), str(root / "api.sock"), stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip()

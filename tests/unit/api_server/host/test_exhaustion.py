"""When the host has no more descriptors, processes or memory."""

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ingle.api_server.host.process import Process, find
from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.pipeline import root_cause

LIMITS = """
import asyncio, resource, sys
from pathlib import Path
from ingle.api_server.host.descriptors import raise_limit
from ingle.api_server.host.process import Process
from ingle.api_server.host.tool import Tools

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    raise_limit()
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    argv = ["sh", "-c", "sleep 0.3; ulimit -Sn"]
    child = Process.spawn(argv, directory=Path("/"), stderr=Path(sys.argv[1], "said"))
    await child.wait()
    print(Path(sys.argv[1], "said").read_text().strip())
    print((await Tools(Path(sys.argv[1])).run(argv)).decode().strip())

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EMFILE, "Too many open files"), Reason.HOST_EXHAUSTED),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), Reason.HOST_EXHAUSTED),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), Reason.HOST_EXHAUSTED),
        (RuntimeError("can't start new thread"), Reason.HOST_EXHAUSTED),
        (MemoryError(), Reason.HOST_EXHAUSTED),
        (OSError(errno.ENOSPC, "No space left on device"), Reason.DISK_FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), Reason.DISK_FULL),
    ],
)
def test_it_is_told_as_what_it_is_and_with_a_remedy(error: BaseException, reason: Reason) -> None:
    told = root_cause(BaseExceptionGroup("undone", [error]))
    assert isinstance(told, HostProblem)
    assert told.reason is reason
    assert told.remedy
    assert told.message.partition(": ")[2]


def test_other_failures_stay_what_they_are() -> None:
    for error in (OSError(errno.EIO, "Input/output error"), RuntimeError("no"), OSError("no number")):
        assert root_cause(error) is error


async def test_a_process_that_can_not_be_watched_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    argv = ["sleep", "31415"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", none_left)
        with pytest.raises(OSError, match="Too many open files"):
            Process.spawn(argv, directory=tmp_path, stderr=tmp_path / "said")
    assert not find(lambda found: found[:2] == argv)
    await asyncio.sleep(0)


def test_the_server_has_many_descriptors_and_what_it_starts_as_many_as_it_was_given(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", LIMITS, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert int(said[0]) > 256
    assert said[1:] == ["256", "256"]

"""Logs of VMs, as they are read while they grow."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingle.api_server.adapters.vm_files import LocalVmFiles
from ingle.api_server.model.errors import HostProblem
from ingle.api_server.ports.engine import VmPaths
from ingle.api_server.ports.vm_files import LogWish, Said


@pytest.fixture
def files(tmp_path: Path) -> LocalVmFiles:
    return LocalVmFiles(tmp_path, tmp_path / "run")


@pytest.fixture
def paths(files: LocalVmFiles) -> VmPaths:
    paths = files.paths("0123456789ab")
    files.create_state(paths)
    return paths


async def rest(logs: AsyncIterator[Said]) -> bytes:
    return b"".join([said.data async for said in logs])


@pytest.mark.parametrize(
    ("lines", "shown"), [(None, b"a\nb\nc\n"), (0, b""), (1, b"c\n"), (2, b"b\nc\n"), (9, b"a\nb\nc\n")]
)
async def test_the_last_lines_or_all(files: LocalVmFiles, paths: VmPaths, lines: int | None, shown: bytes) -> None:
    paths.vmm_log.write_bytes(b"a\nb\nc\n")
    assert await rest(files.stream(paths.vmm_log, LogWish(tail_lines=lines))) == shown


async def test_who_follows_a_log_sees_the_next_boots_too_until_the_vm_is_deleted(
    files: LocalVmFiles, paths: VmPaths
) -> None:
    paths.vmm_log.write_bytes(b"old\nfirst boot\n")
    logs = files.stream(paths.vmm_log, LogWish(follow=True, tail_lines=1))
    assert (await anext(logs)).data == b"first boot\n"
    paths.vmm_log.unlink()
    paths.vmm_log.write_bytes(b"second boot\nall of it\n")
    assert (await anext(logs)).data == b"second boot\nall of it\n"
    ending = asyncio.create_task(rest(logs))
    await files.remove_state(paths)
    assert await ending == b""


def test_a_runtime_directory_that_nobody_can_make_is_told_with_what_keeps_it(tmp_path: Path) -> None:
    files = LocalVmFiles(tmp_path, Path("/proc/gone"))
    with pytest.raises(HostProblem) as refused:
        files.create_runtime(files.paths("0123456789ab"))
    assert "enable-linger" in refused.value.remedy

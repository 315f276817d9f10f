"""Logs that are written without end take bounded room, also while nobody looks, and can still be read."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ingle.api_server.adapters.vm_files import LocalVmFiles
from ingle.api_server.adapters.vmm import logs as vmm_logs
from ingle.api_server.host import bounded_log
from ingle.api_server.host.process import Process
from ingle.api_server.model.errors import HostProblem
from ingle.api_server.ports.engine import VmPaths
from ingle.api_server.ports.vm_files import LogWish

MIB = 2**20


async def read(files: LocalVmFiles, log: Path, tail_lines: int | None = None) -> bytes:
    return b"".join([said.data async for said in files.stream(log, LogWish(tail_lines=tail_lines))])


async def test_only_the_end_keeps_its_blocks_and_offsets_stay(tmp_path: Path) -> None:
    files = LocalVmFiles(tmp_path, tmp_path)
    log = tmp_path / "console.log"
    lines = [b"%063d\n" % number for number in range(4 * MIB // 64)]
    log.write_bytes(b"".join(lines))
    bounded_log.trim(log, MIB)
    assert log.stat().st_size == 4 * MIB
    assert log.stat().st_blocks * 512 <= MIB + 64 * 1024
    kept = await read(files, log)
    assert b"".join(lines).endswith(kept)
    assert MIB <= len(kept) <= MIB + 64 * 1024
    assert await read(files, log, tail_lines=2) == b"".join(lines[-2:])
    with log.open("ab") as guest:
        guest.write(b"more\n")
    assert (await read(files, log)).endswith(lines[-1] + b"more\n")


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
async def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, put: Callable[[Path], None]) -> None:
    log = tmp_path / "console.log"
    put(log)
    for use in (lambda: bounded_log.begin(log, 0), lambda: bounded_log.trim(log), lambda: bounded_log.read_end(log, 9)):
        with pytest.raises(HostProblem, match="is no regular file"):
            use()
    with pytest.raises(HostProblem, match="is no regular file"):
        await read(LocalVmFiles(tmp_path, tmp_path), log)
    with pytest.raises(HostProblem, match="is no regular file"):
        Process.spawn(["true"], directory=tmp_path, stderr=log)


async def test_a_short_console_is_left_whole(tmp_path: Path) -> None:
    files = LocalVmFiles(tmp_path, tmp_path)
    log = tmp_path / "console.log"
    log.write_bytes(b"hello\n")
    bounded_log.trim(log, MIB)
    bounded_log.trim(tmp_path / "absent", MIB)
    assert await read(files, log) == b"hello\n"


# What a VMM does that a guest makes say much: it says it anyway, and lives on when it can't.
_FLOODS = """
import os, sys, time
disk = os.open("disk", os.O_RDWR | os.O_CREAT)
sys.stdin.read()
said = 0
while said < 64 << 20:
    try:
        said += os.write(2, b"%063d\\n" % (said // 64) * 1000)
    except OSError:
        break
os.pwrite(disk, b"written", 5 << 30)
open("done", "w").close()
time.sleep(1000)
"""


async def test_who_says_more_than_fits_lives_on_and_so_do_its_disks(tmp_path: Path) -> None:
    log, offset = tmp_path / "vmm.log", 6 * 2**30 + 1
    bounded_log.begin(log, offset)
    begun = log.stat().st_size
    process = Process.spawn([sys.executable, "-c", _FLOODS], directory=tmp_path, stderr=log)
    try:
        process.limit_files(bounded_log.limit([log]))
        limit = process.file_limit
        assert limit == begun + bounded_log.ROOM_BYTES
        while not (tmp_path / "done").exists():
            assert not await process.wait(0.05), log.read_bytes()[begun:]
        assert log.stat().st_size == limit
        assert log.stat().st_blocks * 512 <= bounded_log.ROOM_BYTES + MIB
        assert (tmp_path / "disk").stat().st_size == 5 * 2**30 + len(b"written")
        bounded_log.tell_loss(log, limit)
        bounded_log.trim(log, MIB)
        assert log.stat().st_blocks * 512 <= 2 * MIB
        files = LocalVmFiles(tmp_path, tmp_path)
        assert (await read(files, log, tail_lines=1)).startswith(b"[ingle: there was no room")
        assert files.tail(log, 10**9).count("\n") == (await read(files, log)).count(b"\n")
    finally:
        process.signal(9)
        await process.wait()
        process.close()


async def test_a_log_that_lags_behind_another_of_its_process_has_no_more_room_than_that_one(tmp_path: Path) -> None:
    files, paths = LocalVmFiles(tmp_path, tmp_path), VmPaths(tmp_path, tmp_path)
    logs = (paths.console_log, paths.vmm_log)
    for log in logs:
        bounded_log.begin(log, 6 * 2**30 + 1)
    with paths.vmm_log.open("ab") as vmm_log:
        vmm_log.write(b"said first\n")
    process = Process.spawn([sys.executable, "-c", _FLOODS], directory=tmp_path, stderr=paths.vmm_log)
    try:
        process.limit_files(bounded_log.limit(logs))
        for _ in range(3):  # a guest that writes all the time, for long
            with paths.console_log.open("ab") as console:
                console.truncate(console.tell() + 2**30)
                console.seek(0, 2)
                console.write(b"more\n" * 1000)
            vmm_logs.bound(process, logs)
        limit = process.file_limit
        assert limit is not None
        for log in logs:
            room = limit - log.stat().st_size
            assert MIB < room <= bounded_log.ROOM_BYTES
        while not (tmp_path / "done").exists():
            assert not await process.wait(0.05)
        assert paths.vmm_log.stat().st_size == limit
        assert paths.vmm_log.stat().st_blocks * 512 <= bounded_log.ROOM_BYTES + MIB
        said = await read(files, paths.vmm_log)
        assert said.startswith(b"said first\n%063d\n" % 0)
        assert b"\0" not in said
    finally:
        process.signal(9)
        await process.wait()
        process.close()


async def test_a_boots_new_log_begins_where_the_console_of_many_boots_has_come_to(tmp_path: Path) -> None:
    paths = VmPaths(tmp_path, tmp_path)
    logs = (paths.console_log, paths.vmm_log)
    assert vmm_logs.begun(logs, 2**31)
    assert {log.stat().st_size for log in logs} == {2**31}
    paths.vmm_log.unlink()
    os.truncate(paths.console_log, 2**33)
    assert vmm_logs.begun(logs, 2**31)
    ends = [log.stat().st_size for log in logs]
    assert min(ends) >= 2**33
    assert max(ends) - min(ends) < MIB


async def test_what_was_written_before_and_after_a_hole_is_read_as_one_and_nothing_is_missed(tmp_path: Path) -> None:
    files, log, other = LocalVmFiles(tmp_path, tmp_path), tmp_path / "vmm.log", tmp_path / "console.log"
    other.write_bytes(b"")
    log.write_bytes(b"one\ntwo\n")
    follower = files.stream(log, LogWish(follow=True))
    assert (await anext(follower)).data == b"one\ntwo\n"
    for number in (1, 2):
        os.truncate(other, number * 64 * MIB)
        bounded_log.level([log, other])
        bounded_log.trim(log)
        assert await read(files, log, tail_lines=1) == (b"two\n" if number == 1 else b"three 1\n")
        with log.open("ab") as vmm:
            vmm.write(b"three %d\n" % number)
        assert (await anext(follower)).data == b"three %d\n" % number
    await follower.aclose()  # type: ignore[attr-defined] # it is a generator
    everything = b"one\ntwo\nthree 1\nthree 2\n"
    assert await read(files, log) == everything
    assert files.tail(log, 2**20) == everything.decode()
    assert files.tail(log, 10) == everything[-10:].decode()
    for lines in range(1, 5):
        assert await read(files, log, tail_lines=lines) == b"".join(everything.splitlines(keepends=True)[-lines:])
    assert log.stat().st_blocks * 512 <= MIB


async def test_a_log_from_before_goes_on_behind_the_disk(tmp_path: Path) -> None:
    files, log = LocalVmFiles(tmp_path, tmp_path), tmp_path / "console.log"
    log.write_bytes(b"first boot\nends\n")
    bounded_log.begin(log, 2**33)
    bounded_log.begin(log, 2**32)
    assert log.stat().st_size == 2**33 + len(b"first boot\nends\n")
    with log.open("ab") as guest:
        guest.write(b"second boot\n")
    assert log.stat().st_blocks * 512 < MIB
    assert files.tail(log, 2**34) == "first boot\nends\nsecond boot\n"
    assert await read(files, log) == b"first boot\nends\nsecond boot\n"
    for lines, shown in ((1, b"second boot\n"), (2, b"ends\nsecond boot\n")):
        assert await read(files, log, tail_lines=lines) == shown


async def test_who_follows_a_log_is_told_what_was_forgotten_before_they_came_to_it(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"a" * MIB)
    follower = LocalVmFiles(tmp_path, tmp_path).stream(log, LogWish(follow=True))
    got = b"".join([(await anext(follower)).data for _ in range(MIB // 65536)])
    assert got == b"a" * MIB
    with log.open("ab") as guest:
        guest.write(b"b" * 4 * MIB)
        guest.write(b"c" * MIB)
        guest.flush()
        bounded_log.trim(log, MIB)
    assert (
        await anext(follower)
    ).data == b"\n[ingle: 4194304 bytes are missing here: they came faster than they were read]\n"
    assert (await anext(follower)).data == b"c" * 65536
    await follower.aclose()  # type: ignore[attr-defined] # it is a generator

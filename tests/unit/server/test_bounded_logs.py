"""Logs that are written without end take bounded room, also while nobody looks, and can still be read."""

import sys
from pathlib import Path

from ingle.api_server.adapters.files import LocalVmFiles
from ingle.api_server.host import bounded_log
from ingle.api_server.host.process import Process

MIB = 2**20


async def read(files: LocalVmFiles, log: Path, tail_lines: int | None = None) -> bytes:
    return b"".join([data async for data in files.stream(log, follow=False, tail_lines=tail_lines)])


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
    follower = LocalVmFiles(tmp_path, tmp_path).stream(log, follow=True, tail_lines=None)
    got = b"".join([await anext(follower) for _ in range(MIB // 65536)])
    assert got == b"a" * MIB
    with log.open("ab") as guest:
        guest.write(b"b" * 4 * MIB)
        guest.write(b"c" * MIB)
        guest.flush()
        bounded_log.trim(log, MIB)
    assert await anext(follower) == b"\n[ingle: 4194304 bytes are missing here: they came faster than they were read]\n"
    assert await anext(follower) == b"c" * 65536
    await follower.aclose()  # type: ignore[attr-defined] # it is a generator

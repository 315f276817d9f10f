"""A console that is written without end takes bounded room, and can still be read."""

from pathlib import Path

from ingle.api_server.adapters.files import LocalVmFiles

MIB = 2**20


async def read(files: LocalVmFiles, log: Path, tail_lines: int | None = None) -> bytes:
    return b"".join([data async for data in files.stream(log, follow=False, tail_lines=tail_lines)])


async def test_only_the_end_keeps_its_blocks_and_offsets_stay(tmp_path: Path) -> None:
    files = LocalVmFiles(tmp_path, tmp_path)
    log = tmp_path / "console.log"
    lines = [b"%063d\n" % number for number in range(4 * MIB // 64)]
    log.write_bytes(b"".join(lines))
    files.forget_all_but(log, MIB)
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
    files.forget_all_but(log, MIB)
    files.forget_all_but(tmp_path / "absent", MIB)
    assert await read(files, log) == b"hello\n"

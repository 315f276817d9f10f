"""A port that brings nothing until somebody hangs up, as QEMU's may, is hung up; whoever waits gets a stream."""

import asyncio
from pathlib import Path

import pytest

from ingle.api_server.adapters.guest.mux import Lines, lines
from ingle.api_server.adapters.guest.mux.wire import MARK_SIZE, RecordKind, record

_HELLO = len(record(RecordKind.HELLO, bytes(MARK_SIZE)))
_MARK_AT = _HELLO - 4 - 2 * MARK_SIZE
_SILENT = 3
_WAITING = 5


class StuckPort:
    """Silent to the first callers."""

    def __init__(self) -> None:
        self.calls = 0

    async def call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        silent = self.calls <= _SILENT
        hello = await reader.readexactly(_HELLO)
        if not silent:
            mark = hello[_MARK_AT : _MARK_AT + MARK_SIZE]
            writer.write(record(RecordKind.WELCOME, mark, b"g" * MARK_SIZE))
        while await reader.read(65536):
            pass
        writer.close()


async def test_all_who_wait_get_a_stream_once_it_was_hung_up_often_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_PATIENCE_SECONDS", 0.01)
    port = StuckPort()
    server = await asyncio.start_unix_server(port.call, tmp_path / "port")
    at_port = Lines()
    async with asyncio.timeout(30):
        streams = await asyncio.gather(*(at_port.stream(str(tmp_path / "port")) for _ in range(_WAITING)))
    assert len(set(streams)) == _WAITING
    assert port.calls >= _SILENT + 1
    at_port.close()
    server.close()


async def test_who_closes_everything_ends_the_waiting_too(tmp_path: Path) -> None:
    port = StuckPort()
    server = await asyncio.start_unix_server(port.call, tmp_path / "port")
    at_port = Lines()
    waiting = asyncio.create_task(at_port.stream(str(tmp_path / "port")))
    while not port.calls:
        await asyncio.sleep(0.01)
    at_port.close()
    with pytest.raises(OSError, match="the connection was closed"):
        await waiting
    server.close()

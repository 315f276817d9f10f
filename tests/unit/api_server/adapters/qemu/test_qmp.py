"""Descriptors go along with the command that is theirs."""

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest

from ingle.api_server.adapters.qemu.qmp import Qmp
from ingle.api_server.model.errors import Reason, ToolFailed

COMMANDS = 30


class Monitor:
    """QMP's server side as QEMU has it: it keeps the descriptors that came last until a command wants one."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self.given: dict[str, bytes] = {}
        self.commands = 0

    def serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, self._listener:
            connection.sendall(b'{"QMP": {}}\n')
            held, text = -1, b""
            while True:
                data, descriptors, _, _ = socket.recv_fds(connection, 65536, 4)
                if not data:
                    return
                if descriptors:
                    if held >= 0:
                        os.close(held)
                    (held,) = descriptors
                *lines, text = (text + data).split(b"\n")
                for line in lines:
                    command = json.loads(line)
                    self.commands += 1
                    if command["execute"] == "getfd":
                        assert held >= 0, "a command for a descriptor came without one"
                        self.given[command["arguments"]["fdname"]] = os.pread(held, 100, 0)
                        os.close(held)
                        held = -1
                    connection.sendall(b'{"return": {}}\n')


async def test_each_file_arrives_by_its_own_name_amid_other_commands(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "qmp")
    serving = asyncio.create_task(asyncio.to_thread(monitor.serve))
    qmp = await Qmp.connect(tmp_path / "qmp", lambda *_: None, 10.0)
    files = {f"file-{number}": tmp_path / f"file-{number}" for number in range(COMMANDS)}
    descriptors = {}
    for name, file in files.items():
        file.write_text(name)
        descriptors[name] = os.open(file, os.O_RDONLY)
    passing = (qmp.pass_file(descriptor, name) for name, descriptor in descriptors.items())
    others = (qmp.execute("query-status", text="x" * 100_000) for _ in range(COMMANDS))
    await asyncio.gather(*(each for pair in zip(passing, others, strict=True) for each in pair))
    assert monitor.given == {name: name.encode() for name in files}
    assert monitor.commands == 1 + 2 * COMMANDS
    for descriptor in descriptors.values():
        os.close(descriptor)
    await qmp.close()
    await serving


async def test_a_file_for_a_qemu_that_is_gone_is_told(tmp_path: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"QMP": {}}\n')
        await reader.readline()
        writer.write(b'{"return": {}}\n')
        writer.close()

    server = await asyncio.start_unix_server(greet, tmp_path / "qmp")
    qmp = await Qmp.connect(tmp_path / "qmp", lambda *_: None, 10.0)
    await qmp.ended(10.0)
    with (tmp_path / "file").open("wb") as file, pytest.raises(ToolFailed) as refusal:
        await qmp.pass_file(file.fileno(), "file")
    assert refusal.value.reason is Reason.VMM_FAILED
    await qmp.close()
    server.close()

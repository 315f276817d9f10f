"""What an archive says of its snapshot: as it was told, or refused."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from ingle.api_server.adapters.snapshot_archives import LocalSnapshotArchives
from ingle.api_server.host.sparse_archive import Entry, Reader, write
from ingle.api_server.host.threads import Stop
from ingle.api_server.model.errors import BadFile, Reason
from ingle.api_server.model.snapshot import Snapshot
from ingle.api_server.model.vm import Acceleration
from unit.api_server.vmms import NOW, VM

SNAPSHOT = Snapshot(
    id="ba9876543210",
    name="before",
    owner=1000,
    created_at=NOW,
    vm_id=VM.id,
    vm_name=VM.name,
    settings=replace(VM.settings, disk_bytes=1 << 20, env={"A": "b"}, ssh_keys=("ssh-ed25519 AAAA me",)),
    memory=True,
    acceleration=Acceleration.TCG,
    memory_key="red 1.0",
    labels={"keep": "yes"},
    pause_seconds=0.25,
)
TOKEN = b"0123456789abcdef"


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def packed(root: Path) -> bytes:
    archives = LocalSnapshotArchives(root)
    async with archives.scratch("out") as scratch:
        archives.raw_disk(scratch).write_bytes(b"disk".ljust(1 << 20, b"\0"))
        memory = root / "memory"
        memory.mkdir()
        (memory / "ram").write_bytes(b"all that it knew")
        return b"".join([piece async for piece in archives.pack(SNAPSHOT, TOKEN, memory, scratch)])


def with_head(head: bytes, *entries: Entry) -> bytes:
    sink = BytesIO()
    write(sink, head, entries, Stop())
    return sink.getvalue()


async def test_what_is_packed_is_unpacked(tmp_path: Path) -> None:
    archive = await packed(tmp_path)
    archives = LocalSnapshotArchives(tmp_path)
    memory = tmp_path / "there"
    memory.mkdir()
    async with archives.scratch("in") as scratch:
        archived = await archives.receive(pieces(archive), scratch)
        assert archived == (replace(SNAPSHOT, id="", owner=0), TOKEN)
        await archives.unpack(archived.snapshot, memory, scratch)
        assert archives.raw_disk(scratch).read_bytes() == b"disk".ljust(1 << 20, b"\0")
    assert [(path.name, path.read_bytes()) for path in memory.iterdir()] == [("ram", b"all that it knew")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["memory", "there"]


HOSTILE: dict[str, Any] = {
    "name": ["line\nfeed", "x" * 300, 7, None],
    "created_at": ["yesterday", "0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59-12:00", 7],
    "vm": [{"id": "../../etc", "name": "web"}, {"id": VM.id}, [], None],
    "memory": [1, "true", None],
    "acceleration": ["warp", None],
    "token": ["xyz", 7],
    "labels": [[], {"a": 1}],
    "format": [2, None, "x" * 1000],
    "pause": ["long", None, {}],
    "machine": [None, {}, [1]],
}


@pytest.mark.parametrize("field", HOSTILE)
async def test_what_can_not_be_is_refused(tmp_path: Path, field: str) -> None:
    archives = LocalSnapshotArchives(tmp_path)
    archive = await packed(tmp_path)
    async with archives.scratch("told") as scratch:
        await archives.receive(pieces(archive), scratch)
        head = json.loads(Reader(BytesIO(archive)).head())
    for wrong in [*HOSTILE[field], ...]:
        said = {key: value for key, value in head.items() if key != field}
        if wrong is not ...:
            said[field] = wrong
        async with archives.scratch("in") as scratch:
            with pytest.raises(BadFile) as caught:
                await archives.receive(pieces(with_head(json.dumps(said).encode())), scratch)
        assert caught.value.reason is Reason.ARCHIVE_INVALID


@pytest.mark.parametrize("name", ["manifest.json", "memory/../x", "memory/a/b", "/etc/passwd", "disk", "memory/RAM"])
async def test_a_file_that_is_not_of_a_snapshot_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"of another size")
    archives = LocalSnapshotArchives(tmp_path)
    memory = tmp_path / "there"
    memory.mkdir()
    async with archives.scratch("in") as scratch:
        (scratch / "archive").write_bytes(with_head(b"{}", Entry(name, tmp_path / "file")))
        with pytest.raises(BadFile, match="is not of a snapshot"):
            await archives.unpack(SNAPSHOT, memory, scratch)
        assert [path.name for path in scratch.iterdir()] == ["archive"]
    assert list(memory.iterdir()) == []

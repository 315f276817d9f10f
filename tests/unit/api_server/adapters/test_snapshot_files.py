"""A directory of a snapshot is whole or absent, and what is in it is what it was."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.api_server.adapters.snapshot_files import LocalSnapshotFiles
from ingle.api_server.host import files
from ingle.api_server.model.errors import BadFile, Reason
from ingle.api_server.model.snapshot import Snapshot
from unit.api_server.vmms import NOW, VM

BEFORE = Snapshot("0123456789ab", "before", 0, NOW, VM.id, VM.name, VM.settings, memory=True)


async def published(at: LocalSnapshotFiles) -> Snapshot:
    directory = await at.begin(BEFORE)
    with (directory / "disk.raw").open("wb") as disk:
        disk.truncate(2**30)
        disk.seek(2**29)
        disk.write(os.urandom(100_000))
    (at.memory(directory) / "ram").write_bytes(b"secret" * 1000)
    sealed = await at.publish(BEFORE)
    assert sealed.size_bytes < 2**20
    return replace(BEFORE, digest=sealed.digest, size_bytes=sealed.size_bytes)


async def test_what_is_begun_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    at = LocalSnapshotFiles(tmp_path)
    await at.begin(BEFORE)
    assert not at.path(BEFORE.id).exists()
    await at.remove(BEFORE.id)
    assert [*tmp_path.iterdir()] == []
    await published(at)
    assert [*tmp_path.iterdir()] == [at.path(BEFORE.id)]


async def test_files_are_read_once_as_long_as_nobody_touches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await published(LocalSnapshotFiles(tmp_path))
    at = LocalSnapshotFiles(tmp_path)
    read: list[str] = []
    digest = files.content_digest

    def counted(path: Path, stop: object = None) -> str:
        read.append(path.name)
        return digest(path)

    monkeypatch.setattr(files, "content_digest", counted)
    await at.verify([before])
    await at.verify([before])
    assert sorted(read) == ["disk.raw", "ram"]
    os.utime(at.path(before.id) / "disk.raw")
    await at.verify([before])
    assert sorted(read) == ["disk.raw", "disk.raw", "ram"]


def turned(path: Path) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(2)
        file.write(b"X")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


HARMS: dict[str, Callable[[Path], object]] = {
    "memory": lambda directory: turned(directory / "memory" / "ram"),
    "disk": lambda directory: turned(directory / "disk.raw"),
    "manifest": lambda directory: turned(directory / "manifest.json"),
    "shorter": lambda directory: os.truncate(directory / "memory" / "ram", 100),
    "longer": lambda directory: os.truncate(directory / "memory" / "ram", 100_000),
    "absent": lambda directory: (directory / "memory" / "ram").unlink(),
    "more": lambda directory: (directory / "memory" / "state").touch(),
    "gone": lambda directory: directory.rename(directory.with_name("elsewhere")),
    "fifo": lambda directory: pipe(directory / "disk.raw"),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("known", [True, False], ids=["by the same server", "by another server"])
async def test_what_is_not_as_it_was_is_refused(tmp_path: Path, harm: str, *, known: bool) -> None:
    at = LocalSnapshotFiles(tmp_path)
    before = await published(at)
    HARMS[harm](at.path(before.id))
    with pytest.raises(BadFile) as refused:
        await (at if known else LocalSnapshotFiles(tmp_path)).verify([before])
    assert refused.value.reason is Reason.SNAPSHOT_INVALID


async def test_what_nobody_knows_is_swept_away(tmp_path: Path) -> None:
    at = LocalSnapshotFiles(tmp_path)
    before = await published(at)
    await at.begin(replace(BEFORE, id="ba9876543210"))
    await at.sweep({before.id})
    assert [*tmp_path.iterdir()] == [at.path(before.id)]
    await at.verify([before])

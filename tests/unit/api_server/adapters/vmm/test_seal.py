"""Damage to a saved memory is found, whatever of it is kept as holes, and found without reading all of it again."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ingle.api_server.adapters.vmm import seal
from ingle.api_server.host import files
from ingle.api_server.model.errors import Reason, ToolFailed

SIZE = 1 << 20


@pytest.fixture
async def sealed(tmp_path: Path) -> Path:
    """A directory with a sealed memory in two files, mostly zeros."""
    directory = tmp_path / "memory"
    directory.mkdir()
    ram = directory / "ram"
    with ram.open("wb") as file:
        file.truncate(SIZE)
        for offset in (4096, 70_000, SIZE - 5000):
            file.seek(offset)
            file.write(b"of the guest")
    (directory / "state").write_bytes(b"of its devices" * 1000)
    await seal.write(directory, ram, directory / "state")
    return directory


async def refused(directory: Path) -> str:
    with pytest.raises(ToolFailed) as refusal:
        await seal.Seals().check(directory)
    assert refusal.value.reason is Reason.VMM_FAILED
    return refusal.value.message


async def test_what_is_whole_is_found_whole_and_named(sealed: Path) -> None:
    await seal.Seals().check(sealed)
    assert seal.names(sealed) == {"ram", "state"}
    assert {file.stat().st_mode & 0o777 for file in [sealed / seal.SEAL]} == {0o600}


async def test_a_copy_is_whole_with_more_holes_or_fewer(sealed: Path, tmp_path: Path) -> None:
    copies: tuple[Callable[[Path, Path], object], ...] = (shutil.copyfile, files.copy_sparse)
    for number, copy in enumerate(copies):
        other = tmp_path / f"copy-{number}"
        other.mkdir()
        for file in sealed.iterdir():
            copy(file, other / file.name)
        await seal.Seals().check(other)


@pytest.mark.parametrize("name", ["ram", "state"])
@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda file: os.truncate(file, file.stat().st_size - 1), "is not as it was written"),
        (lambda file: os.truncate(file, file.stat().st_size + 1), "is not as it was written"),
        (Path.unlink, "No such file or directory"),
    ],
)
async def test_a_file_that_is_cut_grown_or_gone_is_told(
    sealed: Path, name: str, harm: Callable[[Path], None], told: str
) -> None:
    harm(sealed / name)
    message = await refused(sealed)
    assert name in message
    assert told in message


@pytest.mark.parametrize("offset", [0, 4096, 65_536, 200_000, SIZE - 1])
async def test_a_byte_that_has_changed_is_told_in_data_and_in_holes(sealed: Path, offset: int) -> None:
    with (sealed / "ram").open("r+b") as ram:
        ram.seek(offset)
        ram.write(b"\xff")
    assert "ram is not as it was written" in await refused(sealed)


async def test_blocks_that_have_changed_places_are_told(sealed: Path) -> None:
    whole = bytearray((sealed / "ram").read_bytes())
    whole[: 1 << 16], whole[1 << 16 : 2 << 16] = whole[1 << 16 : 2 << 16], whole[: 1 << 16]
    (sealed / "ram").write_bytes(whole)
    assert "ram is not as it was written" in await refused(sealed)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", '{"version": 1}', '{"version": 1, "files": []}', '{"version": 1, "files": {"ram": 1}}', "\xff"],
)
async def test_a_seal_that_makes_no_sense_is_told(sealed: Path, text: str) -> None:
    (sealed / seal.SEAL).write_bytes(text.encode("latin-1"))
    assert "its seal makes no sense" in await refused(sealed)


async def test_a_seal_of_another_version_is_told(sealed: Path) -> None:
    told = json.loads((sealed / seal.SEAL).read_bytes())
    (sealed / seal.SEAL).write_text(json.dumps({**told, "version": 2}))
    assert "its version is 2; 1 is what this ingle knows" in await refused(sealed)


async def test_a_file_is_read_again_only_after_somebody_has_touched_it(
    sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    measured = files.data_ranges

    def data_ranges(descriptor: int, size: int) -> object:
        read.append(size)
        return measured(descriptor, size)

    monkeypatch.setattr(seal, "data_ranges", data_ranges)
    seals = seal.Seals()
    for _ in range(3):
        await seals.check(sealed)
    assert read.count(SIZE) == 1
    whole = (sealed / "ram").read_bytes()
    (sealed / "ram").write_bytes(whole[:-1] + b"x")
    with pytest.raises(ToolFailed):
        await seals.check(sealed)


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 300_000])
async def test_a_file_is_sealed_while_it_is_written_as_it_is_afterwards(tmp_path: Path, size: int) -> None:
    growing, whole = tmp_path / "growing", tmp_path / "whole"
    content = os.urandom(size)
    for directory in (growing, whole):
        directory.mkdir()
    (growing / "stream").touch()
    async with seal.sealing(growing / "stream"):
        for start in range(0, size, 50_000):
            with (growing / "stream").open("ab") as file:
                file.write(content[start : start + 50_000])
            await asyncio.sleep(0.005)
    (whole / "stream").write_bytes(content)
    await seal.write(whole, whole / "stream")
    assert (growing / seal.SEAL).read_bytes() == (whole / seal.SEAL).read_bytes()
    await seal.Seals().check(growing)


async def test_what_fails_while_it_is_written_is_not_sealed(tmp_path: Path) -> None:
    (tmp_path / "stream").touch()
    with pytest.raises(ZeroDivisionError):
        async with seal.sealing(tmp_path / "stream"):
            raise ZeroDivisionError
    assert [file.name for file in tmp_path.iterdir()] == ["stream"]

"""An archive of sparse files: what comes out is what went in, and what is made to harm is refused."""

import hashlib
import io
import os
import struct
from pathlib import Path

import pytest
import zstandard

from ingle.api_server.host import files
from ingle.api_server.host.sparse_archive import LONGEST_HEAD, MAGIC, MOST_FILES, Entry, Reader, write
from ingle.api_server.host.threads import Stop
from ingle.api_server.model.errors import BadFile, IngleError, Reason

HEAD = b'{"format": 1}'
GIB = 1 << 30


def sparse(path: Path, size: int, *places: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for at in places:
            file.seek(at)
            file.write(os.urandom(100_000))
    return path


def packed(head: bytes, *entries: Entry) -> bytes:
    sink = io.BytesIO()
    write(sink, head, entries, Stop())
    return sink.getvalue()


def received(archive: bytes, place: Path) -> tuple[bytes, dict[str, str]]:
    reader = Reader(io.BytesIO(archive))
    place.mkdir(exist_ok=True)

    def path(name: str, size: int) -> Path:
        if size > 1 << 41:
            raise BadFile(Reason.ARCHIVE_INVALID, "it is too large")
        return place / name

    return reader.head(), reader.receive(path, Stop())


def test_files_are_what_they_were_and_holes_take_no_room(tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", 8 * GIB, 0, 4096 * 1000 + 7, 8 * GIB - 100_000)
    empty = sparse(tmp_path / "empty", 0)
    hole = sparse(tmp_path / "hole", GIB)
    archive = packed(HEAD, Entry("disk", disk), Entry("empty", empty), Entry("hole", hole))
    assert len(archive) < 1 << 20
    head, digests = received(archive, tmp_path / "there")
    assert (head, list(digests)) == (HEAD, ["disk", "empty", "hole"])
    for path in (disk, empty, hole):
        other = tmp_path / "there" / path.name
        assert digests[path.name] == files.content_digest(path) == files.content_digest(other)
        assert other.stat().st_size == path.stat().st_size
        assert files.allocated_bytes(other) < 1 << 20
        assert other.stat().st_mode & 0o777 == 0o600


def test_every_cut_and_every_byte_that_is_another_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    """What frames of zstd say in more than one way, or behind all content, may be said in another, or not."""
    (tmp_path / "file").write_bytes(os.urandom(600))
    archive = packed(HEAD, Entry("file", tmp_path / "file"))
    changes = [archive[:end] for end in range(len(archive))]
    changes += [archive[:at] + bytes((archive[at] ^ 0x40,)) + archive[at + 1 :] for at in range(len(archive))]
    harmless = 0
    for change in changes:
        try:
            head, digests = received(change, tmp_path / "there")
        except BadFile:
            pass
        else:
            harmless += 1
            assert (head, digests) == (HEAD, {"file": files.content_digest(tmp_path / "file")})
        (tmp_path / "there" / "file").unlink(missing_ok=True)
    assert harmless < 10


def begun(size: int, *extents: tuple[int, int, bytes], name: bytes = b"file") -> bytes:
    pieces = [struct.pack(">B", len(name)), name, struct.pack(">Q", size)]
    for length, at, data in extents:
        pieces += [struct.pack(">IQ", length, at), data]
    return b"".join(pieces)


WHOLE = begun(0) + bytes(4) + bytes.fromhex(files.content_digest(Path(os.devnull)))
HOSTILE = {
    "another magic": b"ingle sparse archive 2\n",
    "a long head": MAGIC + struct.pack(">I", LONGEST_HEAD + 1) + bytes(LONGEST_HEAD + 1),
    "a head of four gigabytes": MAGIC + b"\xff" * 4,
    "a long name": MAGIC + bytes(4) + b"\xff" + b"x" * 255,
    "a name of other letters": MAGIC + bytes(4) + begun(0, name="ä".encode()),
    "an extent behind the end": MAGIC + bytes(4) + begun(10, (4, 8, b"1234")),
    "an extent at the end of the world": MAGIC + bytes(4) + begun(10, (4, 2**64 - 2, b"1234")),
    "an extent before another": MAGIC + bytes(4) + begun(100, (4, 50, b"1234"), (4, 0, b"1234")),
    "an extent twice": MAGIC + bytes(4) + begun(100, (4, 50, b"1234"), (4, 50, b"1234")),
    "an extent of four gigabytes": MAGIC + bytes(4) + begun(2**40, (2**32 - 1, 0, b"1234")),
    "another hash": MAGIC + bytes(4) + begun(4, (4, 0, b"1234")) + bytes(4) + bytes(32) + b"\0",
    "a file twice": MAGIC + bytes(4) + WHOLE + WHOLE + b"\0",
    "another head": MAGIC + struct.pack(">I", 4) + b"head" + b"\0" + hashlib.sha256(bytes(4)).digest(),
    "more behind its end": MAGIC + bytes(4) + b"\0" + hashlib.sha256(bytes(4)).digest() + b"more",
}


@pytest.mark.parametrize("how", HOSTILE)
def test_what_is_made_to_harm_is_refused_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    with pytest.raises(BadFile) as caught:
        received(zstandard.compress(HOSTILE[how]), tmp_path / "there")
    assert caught.value.reason is Reason.ARCHIVE_INVALID
    assert how == "a file twice" or list((tmp_path / "there").iterdir()) == []


def test_more_frames_or_bytes_behind_the_end_are_refused(tmp_path: Path) -> None:
    archive = packed(HEAD)
    assert received(archive, tmp_path / "there") == (HEAD, {})
    for more in (b"x", archive):
        with pytest.raises(BadFile, match=r"follows its end|decompressed"):
            received(archive + more, tmp_path / "there")


def test_a_window_larger_than_ours_is_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    archive = compressor.compress(MAGIC + bytes(4) + b"\0" + bytes(32)) + compressor.flush()
    with pytest.raises(BadFile, match="decompressed"):
        received(archive, tmp_path / "there")


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    entries = [Entry(f"file-{number}", tmp_path / "file") for number in range(MOST_FILES)]
    archive = zstandard.decompress(packed(HEAD, *entries), max_output_size=1 << 20)
    one_more = zstandard.compress(archive[:-33] + WHOLE + b"\0")
    with pytest.raises(BadFile, match="more than 16 files"):
        received(one_more, tmp_path / "there")
    with pytest.raises(ValueError, match="more than a reader takes"):
        packed(HEAD, *entries, Entry("more", tmp_path / "file"))


def test_who_receives_can_say_no_to_a_file_before_anything_of_it_comes(tmp_path: Path) -> None:
    def place(name: str, size: int) -> Path:
        raise IngleError(Reason.SNAPSHOT_INVALID, f"{name} has {size} bytes")

    reader = Reader(io.BytesIO(zstandard.compress(MAGIC + bytes(4) + begun(2**62))))
    reader.head()
    with pytest.raises(IngleError, match="file has 4611686018427387904 bytes"):
        reader.receive(place, Stop())

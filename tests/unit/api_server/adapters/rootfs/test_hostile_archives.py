"""Archives that somebody made to hurt: each is refused, with little time and memory, in a process that is not ours."""

import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ingle.api_server.adapters.rootfs import RootFileSystems, ext4, source
from ingle.api_server.host import spool
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import BadFile, HostProblem, InvalidArgument
from ingle.api_server.ports.sources import Piece, Upload
from unit.api_server.adapters.rootfs.archives import Archive, receive
from unit.api_server.adapters.rootfs.test_archive import COMPRESSIONS
from unit.fuzzing import mutations


def header(name: str, size: int, kind: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.USTAR_FORMAT)


def pax(content: bytes) -> bytes:
    return header("x", len(content), tarfile.XHDTYPE) + content + bytes(-len(content) % 512)


def record(key: bytes, value: bytes) -> bytes:
    size = len(key) + len(value) + 3
    size += len(str(size + len(str(size))))
    return b"%d %s=%s\n" % (size, key, value)


FILE = header("f", 0, tarfile.REGTYPE)
END = bytes(1024)

HOSTILE: dict[str, Callable[[], bytes]] = {
    "a chain of headers": lambda: pax(record(b"comment", b"x")) * 5_000 + FILE + END,
    "a name of many parts": lambda: pax(record(b"path", b"d/" * 200_000 + b"f")) + FILE + END,
    "names of many parts": lambda: (pax(record(b"path", b"d/" * 2_000 + b"f")) + FILE) * 5_000 + END,
    "a header without an end": lambda: header("x", (8 << 30) - 1, tarfile.XHDTYPE) + END,
    "a long name without an end": lambda: header("x", (8 << 30) - 1, tarfile.GNUTYPE_LONGNAME) + END,
    "a file larger than any disk": lambda: pax(record(b"size", b"9" * 30)) + FILE + END,
    "a sparse file larger than any disk": lambda: (
        pax(
            record(b"GNU.sparse.major", b"1")
            + record(b"GNU.sparse.minor", b"0")
            + record(b"GNU.sparse.realsize", b"9" * 25)
        )
        + header("f", 512, tarfile.REGTYPE)
        + b"1\n0\n0\n".ljust(512, b"\0")
        + END
    ),
    "large attributes": lambda: (pax(record(b"SCHILY.xattr.user.a", b"x" * (1 << 20))) + FILE) * 66 + END,
    "many attributes": lambda: (
        (pax(b"".join(record(b"SCHILY.xattr.user.%d" % n, b"x") for n in range(2_000))) + FILE) * 60 + END
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_it_is_refused(tools: Tools, tmp_path: Path, name: str) -> None:
    (tmp_path / "archive").write_bytes(HOSTILE[name]())
    (tmp_path / "into").mkdir()
    with pytest.raises(BadFile):
        await receive(RootFileSystems(tools), tmp_path / "archive", tmp_path / "into")


@pytest.mark.parametrize("where", ["attribute", "name", "carriage return", "zero"])
async def test_no_name_becomes_a_command(
    tools: Tools, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """debugfs takes a line that is too long for two, and passes what begins with "!" on to a shell."""
    hidden = " " * 12_000 + "!touch ../../marker ../marker marker\r"
    name, attribute = {
        "attribute": ("f", "user." + hidden),
        "name": (('"' * 200 + "/") * 20 + "f", "user.a"),
        "carriage return": ("a\rb", "user.a"),
        "zero": ("f", "user.a\0b"),
    }[where]
    archive = Archive().with_xattr(name, b"x", attribute, b"y").save(tmp_path / "archive")
    (tmp_path / "into").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadFile):
        await receive(RootFileSystems(tools), archive, tmp_path / "into")
    assert not any((tmp_path / place / "marker").exists() for place in ("", "into", "into/.scratch"))


async def test_nothing_that_is_sent_takes_the_last_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def upload() -> Upload:
        yield Piece(1 << 40, b"data")

    monkeypatch.setattr(spool, "_LEFT_FREE", 1 << 62)
    with pytest.raises(HostProblem, match="kept for others"):
        await spool.spool(upload(), tmp_path / "file", 1 << 41)
    assert list(tmp_path.iterdir()) == []


async def test_more_than_is_allowed_leaves_no_file_also_as_a_hole(tmp_path: Path) -> None:
    async def upload() -> Upload:
        yield Piece(0, b"data")
        yield Piece(1 << 40, b"")

    with pytest.raises(InvalidArgument, match="allowed"):
        await spool.spool(upload(), tmp_path / "file", 1 << 30)
    assert list(tmp_path.iterdir()) == []


def test_fuzz_archives(tmp_path: Path) -> None:
    """Refused, or too much for the child in which it is read; nothing else may come out."""
    file, scratch = tmp_path / "file", tmp_path / "scratch"
    scratch.mkdir()
    whole = Archive().directory("etc").file("etc/x", b"x" * 700).symlink("bin", "usr/bin").hard_link("y", "etc/x")
    seeds = [whole.with_xattr("z", b"z", "user.a", b"\xff").file("d/" * 80 + "f").content()]
    seeds += [make() for name, make in HOSTILE.items() if "sparse" in name or "size" in name]
    for data in mutations(seeds):
        file.write_bytes(data)
        with suppress(BadFile, RecursionError, MemoryError):
            ext4.measured(str(file), str(scratch))


def test_fuzz_what_kind_of_file_it_is(tmp_path: Path) -> None:
    file, target = tmp_path / "file", tmp_path / "target"
    superblock = bytearray(4096)
    superblock[1024 + 0x38 : 1024 + 0x3A] = b"\x53\xef"
    small = Archive().file("x").content()
    seeds = [bytes(superblock), *(compress(small) for compress in COMPRESSIONS.values())]
    for data in mutations(seeds):
        file.write_bytes(data)
        with suppress(BadFile):
            if source._kind(file) == "compressed":
                source.decompress(str(file), str(target))
        target.unlink(missing_ok=True)

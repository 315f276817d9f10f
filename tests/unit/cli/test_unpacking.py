"""A guest's archive, however hostile, stays in its place, and within bounds."""

import io
import os
import resource
import stat
import tarfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ingle.cli import unpacking
from ingle.cli.errors import CliError
from ingle.cli.packing import LeftOut
from ingle.cli.unpacking import unpack
from unit.fuzzing import mutations

_HUGE = 1 << 62


def archive_of(*members: tuple[str, dict[str, object], bytes]) -> bytes:
    """Entries of (name, attributes of a TarInfo, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, attributes, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            for key, value in attributes.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def unpacked(archive: bytes, directory: Path, *, preserve: bool = False) -> LeftOut:
    pieces = (archive[at : at + 700] for at in range(0, len(archive), 700))
    return unpack(pieces, directory, "mine", lambda name, size: None, preserve=preserve)


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("untouched")
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside"


_DIRECTORY: dict[str, object] = {"type": tarfile.DIRTYPE, "mode": 0o755}


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(archive_of(("t/../../outside", {}, b"x")), id="upwards"),
        pytest.param(archive_of(("/outside", {}, b"x")), id="absolute"),
        pytest.param(archive_of(("t//x", {}, b"x")), id="an empty component"),
        pytest.param(archive_of(("t", {"type": tarfile.LNKTYPE, "linkname": "../outside"}, b"")), id="a hard link out"),
        pytest.param(
            archive_of(("t", _DIRECTORY, b""), ("t/x", {"type": tarfile.LNKTYPE, "linkname": "t/none"}, b"")),
            id="a hard link to nothing of its own",
        ),
        pytest.param(
            archive_of(
                ("t", _DIRECTORY, b""),
                ("t/way", {"type": tarfile.SYMTYPE, "linkname": "../.."}, b""),
                ("t/way/outside", {}, b"x"),
            ),
            id="through a link of its own",
        ),
        pytest.param(
            archive_of(
                ("t", _DIRECTORY, b""),
                ("t/way", {"type": tarfile.SYMTYPE, "linkname": "../.."}, b""),
                ("t/way", _DIRECTORY, b""),
            ),
            id="a link as a directory",
        ),
        pytest.param(archive_of(("t", {"type": b"Z"}, b"")), id="an entry of no known kind"),
        pytest.param(archive_of(("t", {"pax_headers": {"comment": "x" * (2 << 20)}}, b"x")), id="a huge header"),
        pytest.param(archive_of(("t", {"pax_headers": {"mtime": "9" * 30}}, b"x")), id="a time beyond all time"),
        pytest.param(archive_of(("t", {"pax_headers": {"mtime": "9" * 5000}}, b"x")), id="an endless time"),
        pytest.param(archive_of(("t", {}, b"x" * 5000))[:2000], id="half a file"),
        pytest.param(b"no archive" * 1000, id="none at all"),
    ],
)
def test_it_is_refused(archive: bytes, inside: Path) -> None:
    with pytest.raises(CliError) as refused:
        unpacked(archive, inside)
    assert refused.value.failures[0].reason in {"ARCHIVE_INVALID", "INVALID_ARGUMENT"}
    assert [path.name for path in inside.parent.iterdir() if path.name not in {"inside", "outside"}] == []
    assert (inside.parent / "outside").read_text() == "untouched"
    assert all(not path.is_file() or path.stat().st_size <= 1 for path in inside.rglob("*"))


def chain_of(*headers: bytes) -> bytes:
    """PAX headers of these contents, and then an entry."""
    chain = b""
    for header in headers:
        member = tarfile.TarInfo("header")
        member.type, member.size = tarfile.XHDTYPE, len(header)
        chain += member.tobuf(tarfile.USTAR_FORMAT) + header + bytes(-len(header) % 512)
    return chain + archive_of(("t", {}, b"x"))


def record_of(key: str, value: str) -> bytes:
    for size in range(len(key) + len(value), len(key) + len(value) + 20):
        record = f"{size} {key}={value}\n".encode()
        if len(record) == size:
            return record
    raise AssertionError


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(chain_of(*[record_of("comment", "x")] * 1000), id="a chain of headers"),
        pytest.param(chain_of(b"2 " * 500_000 + b"="), id="records that overlap"),
        pytest.param(chain_of(b"1"), id="half a record"),
        pytest.param(chain_of(b"0 a=b\n"), id="a record of no length"),
        pytest.param(chain_of(record_of("path", "t/" + "x/" * 200_000)), id="a name of many parts"),
        pytest.param(chain_of(record_of("linkpath", "x" * 5000)), id="a link to a long name"),
        pytest.param(chain_of(record_of("size", "9" * 19)), id="a size beyond all files"),
        pytest.param(chain_of(record_of("size", "-1")), id="less than nothing"),
    ],
)
def test_what_describes_an_entry_is_bounded(archive: bytes, inside: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CliError, match="archive"):
            unpacked(archive, inside)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert list(inside.iterdir()) == []


def test_a_file_for_which_there_is_no_room_leaves_the_one_that_was_there(inside: Path) -> None:
    (inside / "mine").write_text("old")
    with file_size_limit(1000), pytest.raises(CliError, match="too large"):
        unpacked(archive_of(("t", {}, b"new" * 1000)), inside)
    assert [(path.name, path.read_text()) for path in inside.iterdir()] == [("mine", "old")]


def test_many_directories_are_not_kept_beyond_bounds(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "_MOST_REMEMBERED", 100_000)
    with pytest.raises(CliError, match="too many files"):
        unpacked(archive_of(*[(name, _DIRECTORY, b"") for name in ("t", *(f"t/{n}" for n in range(1000)))]), inside)


def test_fuzz_copies(inside: Path) -> None:
    """Whatever a guest sends: refused by a word, or files below the destination."""
    seeds = [
        archive_of(
            ("t", _DIRECTORY, b""),
            ("t/x", {"pax_headers": {"mtime": "1.25", "SCHILY.xattr.user.a": "b"}}, b"x" * 600),
            ("t/h", {"type": tarfile.LNKTYPE, "linkname": "t/x"}, b""),
            ("t/s", {"type": tarfile.SYMTYPE, "linkname": "../.."}, b""),
            ("t/s/outside", {}, b"x"),
        ),
        sparse(b"2\n0\n1\n4096\n1\n", 5000, b"xy"),
        chain_of(record_of("path", "t/long"), record_of("linkpath", "x")),
    ]
    for number, data in enumerate(mutations(seeds)):
        target = inside / str(number % 50)
        target.mkdir(exist_ok=True)
        with suppress(CliError), file_size_limit(1 << 20):
            unpacked(sealed(data), target)
        assert not list(target.rglob(".ingle-*"))
    assert (inside.parent / "outside").read_text() == "untouched"
    assert sorted(path.name for path in inside.parent.iterdir()) == ["inside", "outside"]


def sealed(archive: bytes) -> bytes:
    """The same with right checksums wherever a header may be."""
    result = bytearray(archive)
    for at in range(0, len(result) - 511, 512):
        if result[at + 257 : at + 262] == b"ustar":
            result[at + 148 : at + 156] = b" " * 8
            result[at + 148 : at + 156] = b"%06o\0 " % sum(result[at : at + 512])
    return bytes(result)


def sparse(table: bytes, size: int, content: bytes) -> bytes:
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "t",
        "GNU.sparse.realsize": str(size),
    }
    return archive_of(("x", {"pax_headers": headers}, table + bytes(-len(table) % 512) + content))


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(sparse(b"1\n0\n1\n", _HUGE, b"x"), id="larger than any file"),
        pytest.param(sparse(b"999999999\n", 5, b""), id="a map without end"),
        pytest.param(sparse(b"1\n-5\n1\n", 5, b"x"), id="a place before the file"),
        pytest.param(sparse(b"1\n0\n5000\n", 5000, b"x"), id="less than the map says"),
    ],
)
def test_a_sparse_file_is_what_it_says_or_refused(archive: bytes, inside: Path) -> None:
    with pytest.raises(CliError):
        unpacked(archive, inside)
    assert all(path.stat().st_size <= 5000 for path in inside.iterdir())


def test_a_map_is_not_kept_beyond_its_bounds(inside: Path) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        member = tarfile.TarInfo("x")
        member.size = 1 << 30
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "5"}
        yield member.tobuf(tarfile.PAX_FORMAT) + b"99999999\n"
        while True:
            taken += 1024
            yield b"1\n" * 512

    with pytest.raises(CliError) as refused:
        unpack(endless(), inside, "mine", lambda name, size: None, preserve=False)
    assert "describe one file" in refused.value.failures[0].message
    assert taken < 2 << 20


def test_a_large_hole_costs_nothing(inside: Path) -> None:
    unpacked(sparse(b"2\n4096\n1\n1099511627776\n0\n", 1 << 40, b"x"), inside)
    assert (inside / "mine").stat().st_size == 1 << 40
    assert (inside / "mine").stat().st_blocks * 512 < 100_000


def test_powers_and_devices_are_taken_over_on_demand_only(inside: Path) -> None:
    archive = archive_of(
        ("t", _DIRECTORY, b""),
        ("t/program", {"mode": 0o6755, "pax_headers": {"SCHILY.xattr.user.note": "x"}}, b"x"),
        ("t/null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}, b""),
    )
    left_out = unpacked(archive, inside)
    assert left_out.files == [str(inside / "mine" / "null")]
    program = inside / "mine" / "program"
    assert (stat.S_IMODE(program.stat().st_mode), os.listxattr(program)) == (0o755, [])


def test_attributes_that_have_no_place_are_counted(inside: Path) -> None:
    records = {"SCHILY.xattr.user.kept": "x", "SCHILY.xattr.security.selinux": "x", "SCHILY.xattr.nonsense": "x"}
    archive = archive_of(("t", {"uid": os.getuid(), "gid": os.getgid(), "pax_headers": records}, b"x"))
    assert unpacked(archive, inside, preserve=True).attributes == 2
    assert os.listxattr(inside / "mine") == ["user.kept"]

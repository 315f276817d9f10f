"""Whoever owns a directory can change what is on the way to a file at any time: that never leads us astray."""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest_files import WriteSpec
from ingle.api_server.ports.guest import GuestChannel
from ingle.api_server.ports.guest_files import GuestFiles

_NOBODY = 65534
_ROUNDS = 300

# Swaps two names for ever: renameat2(2) with RENAME_EXCHANGE, so that one of them is always there.
_SWAPPER = """
import ctypes, errno, os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
libc = ctypes.CDLL(None, use_errno=True)
names = [name.encode() for name in sys.argv[1:]]
print("at work", flush=True)
while True:
    if libc.syscall(316, -100, names[0], -100, names[1], 2) and ctypes.get_errno() != errno.ENOENT:
        raise OSError(ctypes.get_errno(), "renameat2")
"""


# Puts a link to the first name in the place of the second for ever, whatever is there.
_LINKER = """
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
victim, name = sys.argv[1:]
print("at work", flush=True)
while True:
    os.symlink(victim, name + ".new")
    os.rename(name + ".new", name)
"""


@contextmanager
def attacker(script: str, *names: Path) -> Iterator[None]:
    """An unprivileged process that does something to these names without end."""
    process = subprocess.Popen([sys.executable, "-c", script, *names], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"at work\n"
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def files(channel: GuestChannel) -> GuestFiles:
    return channel.files


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """One that everybody can get to: what pytest has is shut again by any other pytest that starts."""
    with tempfile.TemporaryDirectory(prefix="ingle-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Path]:
    """A directory of root's that must stay as it is."""
    directory = tmp_path / "precious"
    (directory / "inner").mkdir(parents=True)
    (directory / "inner" / "old").write_text("old")
    before = _seen(directory)
    yield directory
    assert _seen(directory) == before


def _seen(top: Path) -> list[tuple[str, int, int, int]]:
    return [
        (str(path), path.lstat().st_mode, path.lstat().st_uid, path.lstat().st_ino) for path in sorted(top.rglob("*"))
    ]


@pytest.fixture
def theirs(tmp_path: Path, precious: Path) -> Path:
    """A directory of nobody's with a directory `way` in it, and a link `trap` to the precious one."""
    directory = tmp_path / "theirs"
    (directory / "way" / "inner").mkdir(parents=True)
    (directory / "trap").symlink_to(precious)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)
    return directory


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


def archive(*members: tuple[str, bytes]) -> bytes:
    """Empty entries of (name, type)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        for name, kind in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o777
            opened.addfile(member)
    return buffer.getvalue()


Change = Callable[[GuestFiles, str], Awaitable[object]]
_CHANGES: dict[str, Change] = {
    "write": lambda files, way: files.write(WriteSpec(f"{way}/file"), pieces(b"x")),
    "append": lambda files, way: files.write(WriteSpec(f"{way}/inner/old", append=True, mode=0o777), pieces(b"x")),
    "parents": lambda files, way: files.write(WriteSpec(f"{way}/a/b/file", parents=True), pieces(b"x")),
    "mkdir": lambda files, way: files.make_directory(f"{way}/inner/c/d", mode=0o777, parents=True),
    "remove": lambda files, way: files.remove(f"{way}/inner", recursive=True),
    "rename": lambda files, way: files.rename(f"{way}/inner", f"{way}/other", replace=True),
    "copy in": lambda files, way: files.copy_in(
        way, pieces(archive(("file", tarfile.REGTYPE), ("d", tarfile.DIRTYPE)))
    ),
}


@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
async def test_a_link_that_comes_in_between_leads_nowhere(files: GuestFiles, theirs: Path, change: Change) -> None:
    refused = 0
    with attacker(_SWAPPER, theirs / "way", theirs / "trap"):
        for _ in range(_ROUNDS):
            try:
                await change(files, str(theirs / "way"))
            except GuestError as error:
                refused += error.reason is Reason.SYMLINK_REFUSED
    assert refused  # so there were links in the way


async def test_what_an_archive_makes_is_not_exchanged_for_a_link(
    files: GuestFiles, theirs: Path, precious: Path
) -> None:
    victim = precious / "inner" / "old"
    pipes = archive(*[("pipe", tarfile.FIFOTYPE)] * 300)
    with attacker(_LINKER, victim, theirs / "way" / "pipe"):
        for _ in range(30):
            with suppress(GuestError):
                await files.copy_in(str(theirs / "way"), pieces(pipes))


async def test_links_of_roots_and_of_the_users_own_are_followed(
    files: GuestFiles, theirs: Path, precious: Path, tmp_path: Path
) -> None:
    (tmp_path / "short").symlink_to("theirs/way")
    await files.write(WriteSpec(str(tmp_path / "short" / "one")), pieces(b"x"))
    (theirs / "mine").symlink_to("../theirs/./way/../way")
    os.chown(theirs / "mine", _NOBODY, _NOBODY, follow_symlinks=False)
    await files.write(WriteSpec(str(theirs / "mine" / "two")), pieces(b"x"))
    await files.write(WriteSpec(str(theirs / "mine" / "three"), user="nobody"), pieces(b"x"))
    assert sorted(path.name for path in (theirs / "way").iterdir()) == ["inner", "one", "three", "two"]
    with pytest.raises(GuestError) as refused:
        await files.write(WriteSpec(str(theirs / "trap" / "four")), pieces(b"x"))
    assert refused.value.reason is Reason.SYMLINK_REFUSED
    assert f'the link "trap" of uid {_NOBODY} leads to a directory of uid 0' in refused.value.message
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(GuestError) as refused:
        await files.write(WriteSpec(str(tmp_path / "loop" / "five")), pieces(b"x"))
    assert refused.value.reason is Reason.SYMLINK_REFUSED

"""The program of an engine: out of what it is released as, and to where the server finds it."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ingle.cli.errors import CliError, failed

_LARGEST = 256 << 20
"""Bytes, of a release and of the program in it."""

_PIECE = 1 << 20
_PATIENCE_SECONDS = 60
_IS_URL = re.compile(r"https?://")
_VERSION = re.compile(rb"\bv?(\d+\.\d+[\w.+-]*)")
_NOT_ALLOWED = "INVALID_ARGUMENT"


@contextmanager
def release(source: str, sha256: str) -> Iterator[Path]:
    """The file with a release, from a path or a URL, whose hash is that. Raises CliError."""
    with tempfile.TemporaryDirectory(prefix="ingle-engine-") as directory:
        file = Path(directory) / "release"
        digest = hashlib.sha256()
        try:
            with _opened(source) as reader, file.open("wb") as writer:
                for piece in _pieces(reader, source):
                    digest.update(piece)
                    writer.write(piece)
        except (OSError, urllib.error.URLError) as error:
            raise failed(_NOT_ALLOWED, f"{source} can't be read: {_why(error)}") from error
        if digest.hexdigest() != sha256.lower():
            raise failed(
                _NOT_ALLOWED,
                f"{source} is not what was asked for: its SHA-256 is {digest.hexdigest()}",
                "compare with what the release's page says",
            )
        yield file


def install(release_file: Path, name: str, below: Path) -> tuple[Path, str]:
    """Where the program `name` of a release is from now on, and its version. Raises CliError."""
    program = release_file.with_name("program")
    if tarfile.is_tarfile(release_file):
        _unpack(release_file, name, program)
    else:
        release_file.rename(program)
    program.chmod(0o755)
    version = _version(program, name)
    target = below / f"{name}-{version}" / name
    try:
        below.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(exist_ok=True)
        for directory in (below, target.parent):
            directory.chmod(0o755)  # whatever the umask: the server is another user's
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{name}.", delete=False) as new:
            try:
                with program.open("rb") as file:
                    shutil.copyfileobj(file, new)
                os.fchmod(new.fileno(), 0o755)
                new.flush()
                os.fsync(new.fileno())
                os.rename(new.name, target)  # VMs that run have the former one
            except BaseException:
                Path(new.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise failed(_NOT_ALLOWED, f"{target.parent} can't be written: {error.strerror}") from error
    return target, version


def _unpack(archive: Path, name: str, into: Path) -> None:
    """The one file in it that is the program for this machine, and none of the others, such as its debug symbols."""
    ours = re.compile(rf"{name}(-v?\d[\d.]*-{platform.machine()})?")
    try:
        with tarfile.open(archive) as opened:
            found = [member for member in opened if member.isreg() and ours.fullmatch(Path(member.name).name)]
            if len(found) != 1:
                raise failed(_NOT_ALLOWED, f"the archive has {len(found) or 'no'} programs {name} for this machine")
            if found[0].size > _LARGEST:
                raise _too_large("the program")
            content = opened.extractfile(found[0])
            assert content is not None
            with content, into.open("wb") as file:
                shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise failed(_NOT_ALLOWED, f"the archive can't be read: {error}") from error


def _version(program: Path, name: str) -> str:
    try:
        ran = subprocess.run(
            [program, "--version"], check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise failed(_NOT_ALLOWED, f"that is no {name} that runs here: {error}") from error
    said = _VERSION.search(ran.stdout)
    if name.encode() not in ran.stdout.lower() or said is None:
        raise failed(_NOT_ALLOWED, f"that is no {name}: asked for its version it says {ran.stdout[:100]!r}")
    return said[1].decode()


def _opened(source: str) -> IO[bytes]:
    if _IS_URL.match(source):
        opened: IO[bytes] = urllib.request.urlopen(source, timeout=_PATIENCE_SECONDS)  # noqa: S310 - it is one of these
        return opened
    return open(source, "rb")


def _pieces(reader: IO[bytes], source: str) -> Iterator[bytes]:
    size = 0
    while piece := reader.read(_PIECE):
        size += len(piece)
        if size > _LARGEST:
            raise _too_large(source)
        yield piece


def _too_large(what: str) -> CliError:
    return failed(_NOT_ALLOWED, f"{what} has more than the {_LARGEST >> 20} MiB that are allowed")


def _why(error: OSError) -> str:
    return error.strerror or str(error)

"""What the Debian package would put on a machine, seen without installing it."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from lab import payload
from lab.disk import REPOSITORY

PLACES = (
    "./etc/ingle/",
    "./usr/bin/ingle",
    "./usr/lib/ingle/",
    "./usr/lib/systemd/resolved.conf.d/",
    "./usr/lib/systemd/system/",
    "./usr/lib/sysusers.d/",
    "./usr/lib/tmpfiles.d/",
    "./usr/share/",
)


@pytest.fixture(scope="module")
def package(pytestconfig: pytest.Config) -> Path:
    """That which the lab gets, too."""
    cache = Path(pytestconfig.option.lab_logs)
    cache.mkdir(parents=True, exist_ok=True)
    return payload.package(cache, payload.wheel(cache))


@pytest.fixture(scope="module")
def contents(package: Path) -> Iterator[tarfile.TarFile]:
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    packed = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        yield archive


def test_all_of_it_is_roots_and_nobody_else_can_write_to_it(contents: tarfile.TarFile) -> None:
    members = contents.getmembers()
    assert len(members) > 1000
    assert {(member.uname, member.gname, member.uid, member.gid) for member in members} == {("root", "root", 0, 0)}
    assert [member.name for member in members if not member.issym() and member.mode & 0o7022] == []


def test_it_keeps_to_its_places(contents: tarfile.TarFile) -> None:
    files = [member.name for member in contents.getmembers() if not member.isdir()]
    assert [name for name in files if not name.startswith(PLACES)] == []


def test_nothing_tells_where_it_was_built(contents: tarfile.TarFile) -> None:
    built_at = str(REPOSITORY).encode()
    files = [member for member in contents.getmembers() if member.isfile()]
    assert [member.name for member in files if built_at in _content(contents, member.name)] == []
    code = [member.name for member in files if member.name.endswith(".pyc") and "/ingle/cli/" in member.name]
    assert code
    assert [name for name in code if b"/usr/lib/ingle/lib/python3" not in _content(contents, name)] == []


def test_what_is_built_into_its_programs_is_told_with_its_licence(contents: tarfile.TarFile, tmp_path: Path) -> None:
    told = _content(contents, "./usr/share/doc/ingle/copyright").decode()
    programs = [name for name in contents.getnames() if "/api_server/programs/ingle-" in name]
    assert len(programs) == 2
    for name in programs:
        program = tmp_path / Path(name).name
        program.write_bytes(_content(contents, name))
        said = subprocess.run(
            [REPOSITORY / "scripts/go.sh", "version", "-m", program], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        modules = [line.split()[1:3] for line in said.splitlines() if line.startswith("\tdep\t")]
        assert modules
        for path, version in modules:
            assert f"\nLicense: {path}-{version}\n LICENSE" in told


def test_all_bytecode_is_there_and_never_checked_so_that_root_writes_none(contents: tarfile.TarFile) -> None:
    sources = [name for name in contents.getnames() if name.endswith(".py")]
    assert {_content(contents, cache_from_source(name))[4:8] for name in sources} == {b"\x01\0\0\0"}


def test_it_takes_the_python_that_its_modules_are_compiled_for(package: Path, contents: tarfile.TarFile) -> None:
    depends = subprocess.run(
        ["dpkg-deb", "--field", str(package), "Depends"], check=True, capture_output=True, text=True
    ).stdout.split(", ")
    (directory,) = {name.split("/")[5] for name in contents.getnames() if name.startswith("./usr/lib/ingle/lib/python")}
    minor = int(directory.removeprefix("python3."))
    assert {f"python3 (>= 3.{minor})", f"python3 (<< 3.{minor + 1})"} <= set(depends)
    assert {"qemu-system-x86", "mmdebstrap", "uidmap"} <= {name.strip() for name in depends}


def _content(contents: tarfile.TarFile, name: str) -> bytes:
    opened = contents.extractfile(name)
    assert opened is not None
    return opened.read()

"""`ingle engine` with the real server: what is there, and what is put there."""

import hashlib
import io
import json
import platform
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from contract.cli.conftest import Ingle

PROGRAM = b"#!/bin/sh\necho Firecracker v1.99.0\n"


@pytest.fixture
async def own(isolated: Ingle) -> AsyncIterator[Ingle]:
    """The command line and the real server, in directories of their own."""
    home = isolated.environment["HOME"]
    ingle = isolated.with_variables(
        XDG_CACHE_HOME=f"{home}/cache", XDG_CONFIG_HOME=f"{home}/config", XDG_DATA_HOME=f"{home}/data"
    )
    yield ingle
    await ingle("server", "stop")


def archive(path: Path, **members: bytes) -> Path:
    """As a release has it."""
    with tarfile.open(path, "w:gz") as packed:
        for name, content in members.items():
            member = tarfile.TarInfo(f"release-v1.99.0-{platform.machine()}/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


def a_release(path: Path) -> Path:
    ours = f"firecracker-v1.99.0-{platform.machine()}"
    others = {f"{ours}.debug": b"symbols", f"jailer-v1.99.0-{platform.machine()}": b"another", "NOTICE": b"text"}
    return archive(path, **{ours: PROGRAM, **others})


def install(source: Path | str, file: Path) -> tuple[str, ...]:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return ("engine", "install", "firecracker", "--from", str(source), "--sha256", digest)


def installed(ingle: Ingle) -> Path:
    return Path(ingle.environment["XDG_DATA_HOME"]) / "ingle/engines/firecracker-1.99.0/firecracker"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Where files of the test's directory are served."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_a_release_becomes_the_one_that_the_server_uses(own: Ingle, tmp_path: Path) -> None:
    done = await own(*install(file := a_release(tmp_path / "release.tgz"), file))
    program = installed(own)
    assert (done.code, done.out) == (0, b""), done.err
    assert done.err.startswith(f"{program} is firecracker 1.99.0\n")
    assert (program.read_bytes(), program.stat().st_mode & 0o777) == (PROGRAM, 0o755)
    assert [file.name for file in program.parent.iterdir()] == ["firecracker"]
    told = json.loads((await own("engine", "list", "--json")).out)
    assert [(engine["name"], engine["version"]) for engine in told if engine["name"] == "firecracker"] == [
        ("firecracker", "1.99.0")
    ]
    assert (await own("config", "get", "firecracker")).text == f"{program}\n"
    again = await own(*install(file, file))
    assert "nothing was changed" in again.err
    assert (again.code, program.read_bytes()) == (0, PROGRAM)


async def test_a_program_alone_is_taken_and_so_is_one_from_afar(own: Ingle, tmp_path: Path, served: str) -> None:
    file = tmp_path / "firecracker"
    file.write_bytes(PROGRAM)
    assert (await own(*install(f"{served}/firecracker", file))).code == 0
    assert installed(own).read_bytes() == PROGRAM


async def test_another_hash_leaves_it_unread(own: Ingle, tmp_path: Path) -> None:
    mark, file = tmp_path / "it was run", tmp_path / "firecracker"
    file.write_text(f"#!/bin/sh\ntouch '{mark}'\n")
    refused = await own("engine", "install", "firecracker", "--from", str(file), "--sha256", "0" * 64)
    assert refused.code == 1
    assert hashlib.sha256(file.read_bytes()).hexdigest() in refused.err
    assert not mark.exists()
    assert not installed(own).exists()


async def test_what_is_no_such_program_is_not_installed(own: Ingle, tmp_path: Path, served: str) -> None:
    other, empty, twice = tmp_path / "other", tmp_path / "empty.tgz", tmp_path / "twice.tgz"
    other.write_bytes(b"#!/bin/sh\necho something else 1.0\n")
    archive(empty, NOTICE=b"text")
    archive(twice, firecracker=PROGRAM, **{f"firecracker-v1.99.0-{platform.machine()}": PROGRAM})
    for command, said in (
        (install(other, other), "that is no firecracker"),
        (install(empty, empty), "no programs firecracker for this machine"),
        (install(twice, twice), "2 programs firecracker for this machine"),
        (install(tmp_path / "absent", other), "No such file"),
        (install(f"{served}/absent", other), "404"),
        (("engine", "install", "qemu", "--from", "x", "--sha256", "0" * 64), "sudo apt install qemu-system-x86"),
        (("engine", "install", "firecracker", "--from", "x", "--sha256", "abc"), "64 hexadecimal digits"),
    ):
        refused = await own(*command)
        assert refused.code == 1
        assert said in refused.err
    assert not (Path(own.environment["XDG_DATA_HOME"]) / "ingle").exists()

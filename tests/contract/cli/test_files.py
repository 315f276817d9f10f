"""`vm cp` and `vm file`, through real gRPC to a real agent: its files are this host's."""

import asyncio
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.cli.conftest import Ingle
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.agents import agent_binary
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
from ingle.api_server.ports.guest import GuestChannel
from ingle.api_server.rpc import interceptors
from ingle.api_server.rpc.guest_files import FileCalls
from ingle.v1 import guest_pb2_grpc


class OneVm:
    """Store and fleet in one: whatever is asked for, it is the agent at `endpoint`."""

    def __init__(self, endpoint: AgentEndpoint) -> None:
        self._endpoint = endpoint

    async def vm(self, reference: str) -> str:
        return reference

    def channel(self, vm: object) -> GuestChannel:
        return Dialler().channel(self._endpoint)


@pytest.fixture
async def ingle(isolated: Ingle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ingle]:
    """The command line, and a server whose every VM is an agent on this host."""
    monkeypatch.setattr(interceptors, "PEER_PREFIX", "unix:")  # there is no gate before this server
    agent = await asyncio.create_subprocess_exec(
        agent_binary(), "--listen", f"unix:{tmp_path}/agent.sock", stdout=asyncio.subprocess.PIPE
    )
    assert agent.stdout is not None
    await agent.stdout.readline()
    world: Any = OneVm(AgentEndpoint(UnixAddress(f"{tmp_path}/agent.sock")))
    server = grpc.aio.server(interceptors=(interceptors.CallInterceptor(),))
    guest_pb2_grpc.add_GuestServiceServicer_to_server(FileCalls(world, world), server)  # type: ignore[abstract] # what these tests call
    server.add_insecure_port(f"unix:{tmp_path}/api.sock")
    await server.start()
    yield isolated.with_variables(INGLE_SOCKET=str(tmp_path / "api.sock"))
    await server.stop(None)
    agent.kill()
    await agent.communicate()


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A directory of the guest's."""
    (tmp_path / "guest").mkdir()
    return tmp_path / "guest"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory of ours."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


async def done(ingle: Ingle, *arguments: object, stdin: bytes | None = None) -> bytes:
    ended = await ingle("vm", *map(str, arguments), stdin=stdin)
    assert ended.code == 0, ended.err
    return ended.out


async def test_what_is_written_is_printed(ingle: Ingle, guest: Path) -> None:
    data = os.urandom(2_000_000)
    await done(ingle, "file", "write", "-p", "--mode", "600", "web", guest / "a" / "file", stdin=data)
    assert (guest / "a" / "file").stat().st_mode & 0o7777 == 0o600
    assert await done(ingle, "file", "cat", "web", guest / "a" / "file") == data


async def test_a_cut_is_told(ingle: Ingle, guest: Path) -> None:
    (guest / "file").write_bytes(b"one\ntwo\n")
    ended = await ingle("vm", "file", "cat", "--lines", "1", "web", str(guest / "file"))
    assert (ended.out, ended.err) == (b"one\n", "ingle: there is more, from --offset 4\n")


async def test_listing_and_description_as_text_and_as_json(ingle: Ingle, guest: Path) -> None:
    (guest / "b\x1b[31m").touch()
    (guest / "a").symlink_to("b")
    listed = (await done(ingle, "file", "ls", "web", guest)).decode()
    assert "a -> b" in listed
    assert "\x1b" not in listed
    entries = json.loads(await done(ingle, "file", "ls", "--json", "web", guest))
    assert [(entry["name"], entry["type"]) for entry in entries] == [("a", "symlink"), ("b\x1b[31m", "regular")]
    assert json.loads(await done(ingle, "file", "stat", "--json", "web", guest))["type"] == "directory"


async def test_directories_are_made_moved_and_removed(ingle: Ingle, guest: Path) -> None:
    await done(ingle, "file", "mkdir", "-p", "web", guest / "a" / "b")
    await done(ingle, "file", "mv", "web", guest / "a", guest / "c")
    assert (guest / "c" / "b").is_dir()
    refused = await ingle("vm", "file", "rm", "--json", "web", str(guest / "c"))
    assert refused.code != 0
    await done(ingle, "file", "rm", "-r", "web", guest / "c")
    assert list(guest.iterdir()) == []


async def test_a_refusal_names_the_path(ingle: Ingle, guest: Path) -> None:
    ended = await ingle("vm", "cp", f"web:{guest}/none", ".")
    assert ended.code == 1
    assert f"{guest}/none: no such file or directory" in ended.err


async def test_cp_takes_a_tree_there_and_back(ingle: Ingle, guest: Path, here: Path) -> None:
    tree = here / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "ü").write_bytes(b"content")
    (tree / "link").symlink_to("/no/where")
    (tree / "deep").chmod(0o500)
    await done(ingle, "cp", tree, f"web:{guest}")
    await done(ingle, "cp", f"web:{guest}/tree", here / "copy")
    assert (here / "copy" / "deep" / "ü").read_bytes() == b"content"
    assert (here / "copy" / "link").readlink() == Path("/no/where")
    assert (here / "copy" / "deep").stat().st_mode & 0o7777 == 0o500


async def test_cp_renames_or_goes_into_a_directory(ingle: Ingle, guest: Path, here: Path) -> None:
    (here / "f").write_bytes(b"x")
    await done(ingle, "cp", here / "f", f"web:{guest}/g")
    await done(ingle, "cp", f"web:{guest}/g", here)
    assert (here / "g").read_bytes() == b"x"


async def test_cp_from_stdin_and_to_stdout(ingle: Ingle, guest: Path) -> None:
    await done(ingle, "cp", "-", f"web:{guest}/f", stdin=b"bytes")
    assert await done(ingle, "cp", f"web:{guest}/f", "-") == b"bytes"
    with tarfile.open(fileobj=io.BytesIO(await done(ingle, "cp", f"web:{guest}", "-"))) as archive:
        assert archive.getnames() == ["guest", "guest/f"]


async def test_cp_never_writes_through_a_link_that_a_guest_gave(ingle: Ingle, guest: Path, here: Path) -> None:
    (guest / "t").mkdir()
    (guest / "t" / "x").symlink_to(here)
    (here / "out").mkdir()
    await done(ingle, "cp", f"web:{guest}/t", here / "out")
    (guest / "t" / "x").unlink()
    (guest / "t" / "x").mkdir()
    (guest / "t" / "x" / "evil").touch()
    assert (await ingle("vm", "cp", f"web:{guest}/t", str(here / "out"))).code == 1
    assert not (here / "evil").exists()


@pytest.mark.parametrize("places", [("a", "b"), ("web:/a", "web:/b")], ids=["both here", "both there"])
async def test_cp_is_between_here_and_there(ingle: Ingle, places: tuple[str, str]) -> None:
    assert (await ingle("vm", "cp", *places)).code == 2

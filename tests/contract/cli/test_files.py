"""`vm cp` and `vm file`, through real gRPC to a real agent: its files are this host's."""

import asyncio
import base64
import io
import json
import os
import select
import signal
import stat
import tarfile
from pathlib import Path

import pytest

from contract.cli.conftest import Ingle
from contract.cli.test_shell_completion import completions, typing
from trees import allocated, facts, make_tree


@pytest.fixture
def ingle(with_an_agent: tuple[Ingle, int]) -> Ingle:
    return with_an_agent[0]


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


async def test_a_cut_is_part_of_the_json(ingle: Ingle, guest: Path) -> None:
    (guest / "file").write_bytes(b"one\ntwo\n\xff")
    for limits, content, encoding, truncated in (
        (("--bytes", "4"), "one\n", "utf-8", True),
        (("--offset", "8"), "/w==", "base64", False),
    ):
        told = json.loads(await done(ingle, "file", "cat", "--json", *limits, "web", guest / "file"))
        assert (told["content"], told["encoding"], told["truncated"]) == (content, encoding, truncated)
        assert told["file"]["size_bytes"] == 9
        assert told["next_offset"] == (4 if truncated else 9)


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


async def test_cp_takes_a_tree_of_thousands_there_and_back(ingle: Ingle, guest: Path, here: Path) -> None:
    tree = make_tree(here / "tree", 5000)
    await done(ingle, "cp", "-a", tree, f"web:{guest}")
    assert facts(guest / "tree") == facts(tree)
    await done(ingle, "cp", "-a", f"web:{guest}/tree", here / "copy")
    assert facts(here / "copy") == facts(tree)
    sparse = [top / "odd" / "sparse" for top in (tree, guest / "tree", here / "copy")]
    assert max(map(allocated, sparse)) == allocated(sparse[0])


async def test_cp_without_archive_gives_no_powers(ingle: Ingle, guest: Path, here: Path) -> None:
    (here / "t").mkdir()
    (here / "t" / "program").touch()
    os.chown(here / "t" / "program", 1, 2)
    (here / "t" / "program").chmod(0o6755)
    os.setxattr(here / "t" / "program", "user.note", b"x")
    await done(ingle, "cp", here / "t", f"web:{guest}")
    await done(ingle, "cp", "-a", here / "t", f"web:{guest}/powerful")
    os.mknod(guest / "powerful" / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    ended = await ingle("vm", "cp", f"web:{guest}/powerful", str(here / "back"))
    assert "left out: " + str(here / "back" / "null") in ended.err
    for copy in (guest / "t" / "program", here / "back" / "program"):
        info = copy.stat()
        assert (info.st_uid, info.st_gid, oct(info.st_mode), os.listxattr(copy)) == (0, 0, "0o100755", [])


_OF_THE_KERNEL = ("/proc/version", "/proc/filesystems", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/kallsyms")
"""Files whose size is 0, or a page, whatever they hold; the last one is longer than what is read at once."""


@pytest.mark.parametrize("out", [False, True], ids=["in", "out"])
async def test_cp_takes_what_is_in_a_file_whatever_its_size_says(
    ingle: Ingle, guest: Path, here: Path, out: bool
) -> None:
    for path in map(Path, _OF_THE_KERNEL):
        target, content = (here if out else guest) / path.name, path.read_bytes()
        await done(ingle, "cp", *((f"web:{path}", target) if out else (path, f"web:{target}")))
        assert content
        assert target.read_bytes() == content
    assert await done(ingle, "file", "cat", "web", "/proc/version") == Path("/proc/version").read_bytes()


_GOES_WHERE: list[tuple[str, str, dict[str, str] | None]] = [
    ("f", "new", {"new": "f"}),
    ("f", "file", {"file": "f"}),
    ("f", "dir", {"dir/f": "f"}),
    ("f", "link/", {"dir/f": "f"}),
    ("f", "to file", {"file": "f"}),
    ("f", "dangling", {"dir/fresh": "f"}),
    ("d", "to file", None),
    ("f", "to fifo", None),
    ("f", "fifo", None),
    ("f", "new/", None),
    ("f/.", "dir", None),
    ("f", "none/new", None),
    ("d", "new", {"new/x": "x"}),
    ("d", "new/", {"new/x": "x"}),
    ("d/", "dir/.", {"dir/d/x": "x"}),
    ("d", "file", None),
    ("d/.", "new", {"new/x": "x"}),
    ("d/.", "link", {"dir/x": "x"}),
    ("l", "dir", {"dir/l": "-> d"}),
    ("l/", "dir", {"dir/l/x": "x"}),
    ("l/.", "dir", {"dir/x": "x"}),
    ("none", "new", None),
]
"""Source, destination, and what is new or changed there afterwards; None: refused."""


@pytest.mark.parametrize("out", [False, True], ids=["in", "out"])
async def test_cp_goes_where_docker_would(ingle: Ingle, guest: Path, here: Path, out: bool) -> None:
    sources, targets = (guest, here) if out else (here, guest)
    (sources / "f").write_text("f")
    (sources / "d").mkdir()
    (sources / "d" / "x").write_text("x")
    (sources / "l").symlink_to("d")

    async def copied(number: int, source: str, destination: str) -> tuple[bool, dict[str, str]]:
        target = targets / str(number)
        (target / "dir").mkdir(parents=True)
        (target / "dir").chmod(0o701)
        (target / "file").write_text("old")
        (target / "link").symlink_to("dir")
        (target / "to file").symlink_to(target / "file")
        (target / "dangling").symlink_to("dir/fresh")
        (target / "to fifo").symlink_to("fifo")
        os.mkfifo(target / "fifo")
        before = _content(target)
        places = (f"{sources}/{source}", f"{target}/{destination}")
        ended = await ingle("vm", "cp", *((f"web:{places[0]}", places[1]) if out else (places[0], f"web:{places[1]}")))
        assert (target / "dir").stat().st_mode & 0o7777 == 0o701
        after = _content(target)
        assert before.keys() <= after.keys()
        return ended.code == 0, {name: after[name] for name in after if after[name] != before.get(name)}

    for number, (source, destination, made) in enumerate(_GOES_WHERE):
        assert await copied(number, source, destination) == (made is not None, made or {}), (source, destination)


def _content(top: Path) -> dict[str, str]:
    return {
        str(path.relative_to(top)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in top.rglob("*")
        if path.is_symlink() or path.is_file()
    }


async def test_cp_merges_a_directory_into_the_one_that_a_link_leads_to(ingle: Ingle, guest: Path, here: Path) -> None:
    for top in (guest, here):
        (top / "tree" / "bin").mkdir(parents=True)
        (top / "tree" / "bin" / "x").write_text("x")
        (top / "root" / "usr" / "bin").mkdir(parents=True)
        (top / "root" / "bin").symlink_to("usr/bin")
    await done(ingle, "cp", f"{here}/tree/.", f"web:{guest}/root")
    await done(ingle, "cp", "-a", f"web:{guest}/tree/.", here / "root")
    for top in (guest, here):
        assert (top / "root" / "bin").is_symlink()
        assert (top / "root" / "usr" / "bin" / "x").read_text() == "x"
    (here / "root" / "bin").unlink()
    (here / "root" / "bin").symlink_to(here / "tree")
    refused = await ingle("vm", "cp", f"web:{guest}/tree/.", str(here / "root"))
    assert refused.code == 1
    assert "leads out of" in refused.err
    assert sorted(os.listdir(here / "tree")) == ["bin"]


@pytest.mark.parametrize("out", [False, True], ids=["in", "out"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
async def test_cp_that_is_interrupted_leaves_what_was_there(
    ingle: Ingle, guest: Path, here: Path, out: bool, number: signal.Signals
) -> None:
    source, target = (guest, here) if out else (here, guest)
    (source / "f").write_bytes(b"new" * 50_000_000)
    (target / "f").write_bytes(b"old")
    places = (f"{source}/f", f"{target}/f")
    copying = await ingle.start(
        "vm", "cp", *((f"web:{places[0]}", places[1]) if out else (places[0], f"web:{places[1]}"))
    )
    async with asyncio.timeout(30):
        while len(os.listdir(target)) == 1:
            await asyncio.sleep(0.005)
        assert (target / "f").read_bytes() == b"old"
        copying.send_signal(number)
        _, told = await copying.communicate()
        while os.listdir(target) != ["f"]:
            await asyncio.sleep(0.01)
    assert copying.returncode == 128 + number
    assert b"Traceback" not in told
    assert (target / "f").read_bytes() == b"old"


async def test_ctrl_c_ends_a_write_and_a_read_without_a_word(ingle: Ingle, guest: Path) -> None:
    (guest / "f").write_bytes(b"old" * 1_000_000)
    for arguments in (("write",), ("cat",)):
        ours, theirs = os.pipe()
        started = await ingle.start("vm", "file", *arguments, "web", f"{guest}/f", stdin=ours)
        async with asyncio.timeout(30):
            if arguments == ("write",):
                os.write(theirs, b"new")
                while select.select([ours], [], [], 0)[0]:
                    await asyncio.sleep(0.005)
            else:
                assert started.stdout is not None
                await started.stdout.readexactly(1000)
            started.send_signal(signal.SIGINT)
            _, told = await started.communicate()
            while os.listdir(guest) != ["f"]:
                await asyncio.sleep(0.01)
        os.close(ours)
        os.close(theirs)
        assert (started.returncode, told) == (130, b"")
    assert (guest / "f").read_bytes() == b"old" * 1_000_000


async def test_cp_replaces_a_file_and_no_pipe_or_device(ingle: Ingle, guest: Path, here: Path) -> None:
    (guest / "f").write_text("new")
    os.mknod(here / "full", stat.S_IFCHR | 0o600, os.makedev(1, 7))
    refused = await ingle("vm", "cp", f"web:{guest}/f", str(here / "full"))
    assert "a character device is not replaced by a file" in refused.err
    assert stat.S_ISCHR((here / "full").lstat().st_mode)
    assert os.listdir(here) == ["full"]


async def test_names_that_are_not_utf8_go_both_ways(ingle: Ingle, guest: Path, here: Path, tmp_path: Path) -> None:
    odd = "no\udcffutf8"
    (here / odd).write_text("x")
    await done(ingle, "cp", here / odd, f"web:{guest}")
    await done(ingle, "cp", f"web:{guest}/{odd}", here / "back")
    assert (here / "back").read_text() == "x"
    assert os.listdir(guest) == [odd]
    assert await done(ingle, "file", "cat", "web", guest / odd) == b"x"
    assert "no\ufffdutf8" in (await done(ingle, "file", "ls", "web", guest)).decode()
    told = json.loads(await done(ingle, "file", "stat", "--json", "web", guest / odd))
    assert (base64.b64decode(told["raw_name"]), told["mode"]) == (b"no\xffutf8", "0644")
    assert await completions(ingle, tmp_path, "ingle", "vm", "file", "cat", "web", f"{guest}/no") == [f"{guest}/{odd}"]
    await done(ingle, "file", "mv", "web", guest / odd, guest / f"{odd}2")
    await done(ingle, "file", "write", "web", guest / odd, stdin=b"y")
    await done(ingle, "file", "mkdir", "web", guest / f"{odd}3")
    await done(ingle, "file", "rm", "web", guest / f"{odd}2")
    assert sorted(os.listdir(guest)) == [odd, f"{odd}3"]


async def test_cp_from_stdin_and_to_stdout_is_an_archive(ingle: Ingle, guest: Path) -> None:
    (guest / "f").write_bytes(b"bytes")
    (guest.parent / "t").mkdir()
    for source, names in ((guest, ["guest", "guest/f"]), (f"{guest}/.", [".", "./f"])):
        archive = await done(ingle, "cp", f"web:{source}", "-")
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            assert opened.getnames() == names
        await done(ingle, "cp", "-", f"web:{guest}/../t", stdin=archive)
    assert {path.read_bytes() for path in (guest.parent / "t").rglob("f")} == {b"bytes"}
    assert sorted(path.name for path in (guest.parent / "t").iterdir()) == ["f", "guest"]
    refused = await ingle("vm", "cp", "-", f"web:{guest}/f", stdin=archive)
    assert (refused.code, (guest / "f").read_bytes()) == (1, b"bytes")
    assert f"ingle vm file write web {guest}/f" in refused.err


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


async def test_cp_between_two_vms_says_what_to_type(ingle: Ingle) -> None:
    ended = await ingle("vm", "cp", "a:/x y", "b:/z")
    assert ended.code == 2
    assert "ingle vm cp 'a:/x y' - | ingle vm cp - b:/z" in " ".join(ended.err.split())


async def test_cp_is_between_here_and_there(ingle: Ingle) -> None:
    assert (await ingle("vm", "cp", "a", "b")).code == 2


async def test_tab_goes_down_the_guests_directories(ingle: Ingle, guest: Path, tmp_path: Path) -> None:
    (guest / "site" / "deep").mkdir(parents=True)
    (guest / "site" / "index.html").touch()
    (guest / "sibling").touch()
    (guest / ".hidden").touch()
    assert await completions(ingle, tmp_path, "ingle", "vm", "cp", f"web:{guest}/si") == [
        f"web:{guest}/sibling",
        f"web:{guest}/site/",
    ]
    assert await completions(ingle, tmp_path, "ingle", "vm", "cp", ".", f"web:{guest}/.h") == [f"web:{guest}/.hidden"]
    assert await completions(ingle, tmp_path, "ingle", "vm", "file", "ls", "web", f"{guest}/") == [
        f"{guest}/sibling",
        f"{guest}/site/",
    ]
    assert await completions(ingle, tmp_path, "ingle", "vm", "cp", "web:/no/such/") == []
    async with typing(ingle, tmp_path) as bash:
        bash.send(f"ingle vm cp web:{guest}/sit\tin\t")
        await asyncio.to_thread(bash.expect_exact, "site/")
        await asyncio.to_thread(bash.expect_exact, "index.html ")

"""`ingle config` with the real server: what it says is what that uses."""

import asyncio
import json
import os
import stat
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.cli.conftest import Ingle
from small_disk import fill, small_disk


@pytest.fixture
async def own(isolated: Ingle) -> AsyncIterator[Ingle]:
    """The command line and the real server, in directories of their own."""
    home = isolated.environment["HOME"]
    ingle = isolated.with_variables(XDG_CACHE_HOME=f"{home}/cache", XDG_CONFIG_HOME=f"{home}/config")
    yield ingle
    await ingle("server", "stop")


def file_of(ingle: Ingle) -> Path:
    return Path(ingle.environment["XDG_CONFIG_HOME"]) / "ingle/config.toml"


async def test_a_value_is_written_used_and_taken_out_again(own: Ingle) -> None:
    assert (await own("config", "get", "memory_bytes")).text == "512 MiB\n"
    written = await own("config", "set", "memory_bytes", "1G")
    assert (written.code, written.out) == (0, b"")
    file = file_of(own)
    assert written.err == f"{file} is written; VMs that are made from now on go by it\n"
    file.write_text("# why\n" + file.read_text())
    shown = json.loads((await own("config", "show", "--json", "--filter", "name=memory_bytes")).out)
    assert shown == [{"name": "memory_bytes", "value": "1 GiB", "origin": str(file)}]
    assert (await own("config", "unset", "memory_bytes")).code == 0
    assert file.read_text() == "# why\n"
    assert (
        await own("config", "show", "--format", "{{.origin}}", "--filter", "name=memory_bytes")
    ).text == "built-in\n"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("memory_bytes", "1K", "memory"), ("memroy", "1G", "memory_bytes"), ("acceleration", "warp", "acceleration")],
)
async def test_what_the_server_would_refuse_is_not_written(isolated: Ingle, key: str, value: str, said: str) -> None:
    own = isolated.with_variables(XDG_CONFIG_HOME=f"{isolated.environment['HOME']}/config")
    refused = await own("config", "set", key, value)
    assert (refused.code, refused.out, file_of(own).exists()) == (1, b"", False)
    assert "stays as it was" in refused.err
    assert said in refused.err


async def test_what_needs_a_restart_or_is_overruled_is_told(own: Ingle) -> None:
    own = own.with_variables(INGLE_VCPUS="1")
    assert (await own("server", "start")).code == 0
    domain = await own("config", "set", "domain", "elsewhere")
    assert "warning: domain is" in domain.err
    assert "remedy: ingle server restart" in domain.err
    assert (await own("config", "show", "--filter", "name=vcpus", "--format", "{{.origin}}")).text == "$INGLE_VCPUS\n"


async def test_an_editor_changes_it_and_what_is_wrong_is_not_kept(isolated: Ingle, tmp_path: Path) -> None:
    own = isolated.with_variables(XDG_CONFIG_HOME=f"{isolated.environment['HOME']}/config")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "%s\\n" "$TYPED" >"$1"\n')
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    edited = await own.with_variables(EDITOR=f"{editor}", TYPED="vcpus = 1 # one")("config", "edit")
    assert (edited.code, file_of(own).read_text()) == (0, "vcpus = 1 # one\n")
    wrong = await own.with_variables(EDITOR=f"{editor}", TYPED="vcpus = 0")("config", "edit")
    assert (wrong.code, file_of(own).read_text()) == (1, "vcpus = 1 # one\n")
    assert (await own.with_variables(EDITOR="true")("config", "edit")).err == "nothing was changed\n"
    assert (await own.with_variables(EDITOR="false")("config", "edit")).code == 1
    assert os.listdir(file_of(own).parent) == ["config.toml"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
async def test_what_somebody_else_has_written_meanwhile_is_not_lost_nor_is_what_was_typed(
    isolated: Ingle, tmp_path: Path
) -> None:
    own = isolated.with_variables(XDG_CONFIG_HOME=f"{isolated.environment['HOME']}/config", TMPDIR=str(tmp_path))
    file = file_of(own)
    file.parent.mkdir(parents=True)
    file.write_text("vcpus = 1\n")
    editor = tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\necho "vcpus = 2" >{file}\necho "memory_bytes = \'1G\'" >"$1"\n')
    editor.chmod(0o755)
    edited = await own.with_variables(EDITOR=f"{editor}")("config", "edit")
    assert (edited.code, file.read_text()) == (1, "vcpus = 2\n")
    said = " ".join(edited.err.split())
    assert "was changed by somebody else while you edited it" in said
    (kept,) = tmp_path.glob("ingle-config-*.toml")
    assert (kept.read_text(), str(kept) in said) == ("memory_bytes = '1G'\n", True)


async def test_of_values_that_are_set_at_once_none_is_lost(isolated: Ingle) -> None:
    own = isolated.with_variables(XDG_CONFIG_HOME=f"{isolated.environment['HOME']}/config")
    values = {"vcpus": "1", "memory_bytes": "1G", "disk_bytes": "4G", "domain": "vm"}
    ran = await asyncio.gather(*(own("config", "set", *item) for item in values.items()))
    assert [each.code for each in ran] == [0] * len(values), ran
    assert tomllib.loads(file_of(own).read_text()).keys() == values.keys()


@pytest.mark.parametrize("command", [("set", "memory_bytes", "1G"), ("edit",)])
async def test_a_full_disk_is_named_and_the_file_stays(
    isolated: Ingle, tmp_path: Path, command: tuple[str, ...]
) -> None:
    with small_disk(tmp_path / "small", "64k") as disk:
        own = isolated.with_variables(XDG_CONFIG_HOME=f"{disk}", EDITOR="sed -i s/1/2/")
        file = file_of(own)
        file.parent.mkdir()
        file.write_text("vcpus = 1\n")
        fill(disk)
        failed = await own("config", *command)
        assert (failed.code, file.read_text(), os.listdir(file.parent)) == (1, "vcpus = 1\n", ["config.toml"])
        said = f"ingle: {file} stays as it was: No space left on device\n  remedy: df -h {file.parent}\n"
        assert failed.err == said


async def test_what_the_file_does_not_set_is_not_said_to_be_taken_out(isolated: Ingle) -> None:
    own = isolated.with_variables(XDG_CONFIG_HOME=f"{isolated.environment['HOME']}/config")
    kept = await own("config", "unset", "memroy", "vcpus")
    assert (kept.code, kept.err) == (0, f"{file_of(own)} sets no 'memroy' or 'vcpus': nothing was changed\n")
    assert not file_of(own).exists()


async def test_a_key_of_a_table_is_left_to_an_editor_and_told_so(isolated: Ingle) -> None:
    own = isolated.with_variables(XDG_CONFIG_HOME=f"{isolated.environment['HOME']}/config")
    refused = await own("config", "set", "quotas.vms", "3")
    assert (refused.code, file_of(own).exists()) == (1, False)
    assert refused.err == (
        "ingle: 'quotas.vms' is no setting by itself; an editor changes tables\n  remedy: ingle config edit\n"
    )

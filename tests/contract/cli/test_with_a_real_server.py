"""What the command line promises of changes, with the real server: its order of refusals is part of that."""

import asyncio
import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.cli.conftest import Ingle
from ingle.testing.running import server


@pytest.fixture
def real(isolated: Ingle) -> Iterator[Ingle]:
    """The command line, and a server that is the real one but for its machines."""
    with server() as socket:
        yield isolated.with_variables(INGLE_SOCKET=str(Path(socket)))


async def test_a_vm_is_stopped_for_a_change_that_can_be_made_and_for_no_other(real: Ingle) -> None:
    assert (await real("vm", "create", "--name", "web", "--label", "team=shop")).code == 0
    waited = await real("vm", "wait", "web", "--for", "healthy", "--timeout", "30s")
    assert (waited.code, waited.text) == (0, "web\n")
    boot = (await real("vm", "show", "--format", "{{.started_at}}", "web")).text
    for impossible in (("--memory", "900T"), ("--disk-size", "1M"), ("--vcpu", "0")):
        refused = await real("vm", "update", "--restart", *impossible, "web")
        assert refused.code == 1, refused
    assert (await real("vm", "rename", "web", "shop")).text == "shop\n"
    assert (await real("vm", "show", "--format", "{{.started_at}}", "shop")).text == boot
    changed = await real("vm", "update", "--restart", "--memory", "300M", "shop")
    assert (changed.code, changed.text) == (0, "shop\n"), changed.err
    (vm,) = json.loads((await real("vm", "inspect", "shop")).out)
    assert (vm["memory_bytes"], vm["state"], vm["labels"]) == (300 << 20, "running", {"team": "shop"})
    assert vm["started_at"] != boot.strip()
    assert (await real("vm", "list", "-q", "--filter", "label=team=shop", "--filter", "state=running")).text == "shop\n"
    gone = await real.start("vm", "wait", "shop", "--for", "gone")
    assert (await real("vm", "delete", "-f", "shop")).code == 0
    async with asyncio.timeout(30):
        assert await gone.communicate() == (b"shop\n", b"")


async def test_whenever_the_command_of_a_change_is_killed_the_vm_runs_again(real: Ingle) -> None:
    assert (await real("vm", "create", "--name", "web")).code == 0
    memories = [300, 301, 302, 303, 304, 305]
    for memory in memories:
        process = await real.start("vm", "update", "--restart", "--memory", f"{memory}M", "web")
        await asyncio.sleep(0.1 * (memory - memories[0] + 1))
        if process.returncode is None:
            process.kill()
        await process.communicate()
        async with asyncio.timeout(60):
            while (await real("operation", "list", "-q", "--filter", "state=running")).text:
                await asyncio.sleep(0.01)
        shown = await real("vm", "show", "--format", "{{.state}}", "web")
        assert shown.text == "running\n", memory
    assert (await real("vm", "delete", "-f", "web")).code == 0


async def test_what_a_console_said_is_found_by_its_time_and_a_time_that_was_shown_finds_it_again(real: Ingle) -> None:
    assert (await real("vm", "create", "--name", "web")).code == 0
    (line,) = (await real("vm", "logs", "-t", "--since", "1h", "web")).text.splitlines()
    time, _, said = line.partition(" ")
    assert (time[10], time[-1], said) == ("T", "Z", "fake kernel: booting")
    assert (await real("vm", "logs", "--since", time, "web")).text == f"{said}\n"
    assert (await real("vm", "logs", "--until", time, "web")).text == ""
    assert (await real("vm", "logs", "--until", "1h", "web")).text == ""
    assert (await real("vm", "logs", "-f", "--until", "0s", "web")).text == f"{said}\n"
    refused = await real("vm", "logs", "--since", "yesterday", "web")
    assert refused.code == 2
    assert "2h or 7d" in refused.err


async def test_no_vm_is_stopped_that_would_not_start_again(real: Ingle) -> None:
    """Or has a change that the host's disk or a quota does not allow."""
    assert (await real("vm", "create", "--name", "web", "--memory", "256M", "--disk-size", "1G")).code == 0
    boot = (await real("vm", "show", "--format", "{{.started_at}}", "web")).text
    config = Path(real.environment["INGLE_SOCKET"]).parents[2] / "config" / "ingle" / "config.toml"
    config.parent.mkdir(parents=True)
    quota = f"[quotas.users.{os.getuid()}]\n"
    larger, more = (
        ("vm", "update", "--restart", "--disk-size", "16T"),
        ("vm", "update", "--restart", "--memory", "300M"),
    )
    for said, *commands in (
        ('disk_floor_bytes = "900000T"\n', larger, more, ("vm", "restart")),
        ('disk_overcommit = "refuse"\n', larger),
        (f'{quota}disk_bytes = "2G"\n', larger),
        (f'{quota}memory_bytes = "280M"\n', more),
        (f'{quota}memory_bytes = "200M"\n', more, ("vm", "restart")),
    ):
        config.write_text(said)
        for command in commands:
            refused = await real(*command, "web")
            assert refused.code == 1, (said, refused)
            shown = (await real("vm", "show", "--format", "{{.started_at}}", "web")).text
            assert shown == boot, (said, command, refused.err)
    config.unlink()
    assert (await real(*more, "web")).code == 0
    (vm,) = json.loads((await real("vm", "inspect", "web")).out)
    assert (vm["memory_bytes"], vm["disk_bytes"], vm["state"]) == (300 << 20, 1 << 30, "running")
    assert (await real("vm", "delete", "-f", "web")).code == 0


async def test_whatever_is_a_list_has_filters_and_formats(real: Ingle, tmp_path: Path) -> None:
    assert (await real("vm", "create", "--name", "web", "--label", "team=shop")).code == 0
    guest = tmp_path / "guest"
    (guest / "sub").mkdir(parents=True)
    for name in ("a.conf", "b.txt"):
        (guest / name).write_text(name)
        (guest / name).chmod(0o640)
    for said, *command in (
        ("disk_bytes\n", "quota", "-q", "--filter", "name=disk"),
        ("1\n", "quota", "--filter", "name=vms", "--format", "{{.used}}"),
        ("1\n", "df", "--filter", "kind=kernels", "--format", "{{.count}}"),
        ("images\n", "df", "-q", "-f", "kind=images"),
        ("vm_created\n", "events", "--no-follow", "--after", "0", "-f", "kind=vm_created", "--format", "{{.kind}}"),
        ("web\n", "vm", "stats", "--filter", "label=team=shop", "--format", "{{.reference}}"),
        ("", "vm", "stats", "--filter", "label=team=other", "--format", "{{.reference}}"),
        ("sub\n", "vm", "file", "ls", "--filter", "type=directory", "-q", "web", str(guest)),
        (
            "0640 a.conf\n",
            "vm",
            "file",
            "ls",
            "-f",
            "name=*.conf",
            "--format",
            "{{.mode}} {{.name}}",
            "web",
            str(guest),
        ),
    ):
        shown = await real(*command)
        assert (shown.code, shown.text) == (0, said), (command, shown.err)
    for wrong in (
        ("df", "--filter", "kind=nothing"),
        ("events", "--format", "table {{.kind}}"),
        ("events", "--json", "--format", "{{.kind}}"),
        ("quota", "--filter", "size=1"),
        ("quota", "nobody-of-that-name"),
        ("vm", "stats", "--filter", "name=web", "web"),
        ("vm", "stats", "--format", "{{.cpu_percent}}"),
        ("vm", "file", "ls", "--filter", "type=nothing", "web"),
        ("config", "get", "memory"),
    ):
        assert (await real(*wrong)).code == 2, wrong
    (kept,) = json.loads((await real("df", "--json", "--filter", "kind=images")).out)["uses"]
    assert kept["kind"] == "images"
    told = json.loads((await real("config", "get", "--json", "vcpus")).out)
    assert (told["name"], told["value"], sorted(told)) == ("vcpus", "1", ["name", "origin", "value"])
    assert (await real("vm", "delete", "-f", "web")).code == 0


async def test_cp_takes_the_vm_of_a_user_and_no_path_for_one(real: Ingle, tmp_path: Path) -> None:
    assert (await real("vm", "create", "--name", "web")).code == 0
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("content")
    user = pwd.getpwuid(os.getuid()).pw_name
    for number, place in enumerate((f"{user}/web:{tmp_path}/there/file", f"{os.getuid()}/web:{tmp_path}/there/file")):
        copied = await real("vm", "cp", place, str(tmp_path / str(number)))
        assert (copied.code, (tmp_path / str(number)).read_text()) == (0, "content"), copied.err
    refused = await real("vm", "cp", f"no-such-user/web:{tmp_path}/there/file", str(tmp_path / "x"))
    assert (refused.code, "one of the two must be VM:PATH" in " ".join(refused.err.split())) == (2, True)
    assert (await real("vm", "delete", "-f", "web")).code == 0

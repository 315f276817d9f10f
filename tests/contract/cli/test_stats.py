"""`vm stats`, once and again and again, and what `vm show` tells of a guest's callers."""

import asyncio
import json
import signal
import sys

import pexpect  # type: ignore[import-untyped]
import pytest

from contract.cli.conftest import Ingle
from contract.cli.world import World
from ingle.v1 import vm_pb2

Process = asyncio.subprocess.Process


async def lines_of(process: Process, count: int) -> list[str]:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return [(await process.stdout.readline()).decode().rstrip("\n") for _ in range(count)]


async def ended(process: Process, number: int | None = signal.SIGINT) -> tuple[int | None, str]:
    if number is not None:
        process.send_signal(number)
    async with asyncio.timeout(20):
        _, err = await process.communicate()
    return process.returncode, err.decode()


async def test_one_look_tells_network_and_idleness(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    headings, row = (await ingle("vm", "stats")).text.splitlines()
    assert headings.split("  ")[0] == "VM"
    assert "CPU TIME" in headings
    cell = dict(zip(("net", "idle"), (headings.index("NET IN/OUT"), headings.index("IDLE")), strict=True))
    assert row[cell["net"] :].split()[0].replace("iB", "") == "2M/1K"  # without lo
    assert row[cell["idle"] :].startswith("3.50 s")


async def test_watching_as_json_gives_an_object_a_line(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    process = await ingle.start("vm", "stats", "--watch", "--interval", "100ms", "--json", "web")
    looks = [json.loads(line) for line in await lines_of(process, 3)]
    assert [look["reference"] for look in looks] == ["web"] * 3
    assert [look["cpu_percent"] for look in looks] == [None, 100.0, 100.0]
    assert looks[0]["time"] < looks[1]["time"] < looks[2]["time"]
    assert looks[0]["guest"]["interfaces"][1]["received_bytes"] == 2 << 20
    assert looks[0]["activity"]["execs"] == 1
    assert await ended(process) == (130, "")


async def test_watching_off_a_terminal_gives_plain_lines_below_one_heading(ingle: Ingle, world: World) -> None:
    for name in ("web", "db"):
        world.add_vm(name)
    process = await ingle.start("vm", "stats", "-w", "--interval", "100ms")
    headings, *rows = await lines_of(process, 7)
    assert headings.split()[:2] == ["VM", "CPU"]
    assert [row.split()[0] for row in rows] == ["web", "db"] * 3
    assert [row.split()[1] for row in rows] == ["-", "-", *["100.0%"] * 4]
    assert await ended(process) == (130, "")


async def test_watching_on_a_terminal_draws_the_table_anew(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    assert await asyncio.to_thread(code_after_two_drawings, ingle) == 130


def code_after_two_drawings(ingle: Ingle) -> int | None:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "ingle.cli", "vm", "stats", "-w", "--interval", "100ms"],
        env=dict(ingle.environment),
        encoding="utf-8",
        timeout=20,
        dimensions=(24, 160),
    )
    for percent in ("-", "100.0%"):
        child.expect_exact("\x1b[H\x1b[J")
        child.expect_exact("VM ")
        child.expect(f"web +{percent}")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    code: int | None = child.exitstatus
    return code


async def test_a_named_vm_that_ends_is_told_once_and_the_last_one_ends_it(ingle: Ingle, world: World) -> None:
    web, db = world.add_vm("web"), world.add_vm("db")
    process = await ingle.start("vm", "stats", "-w", "--interval", "100ms", "--json", "web", "db")
    await lines_of(process, 2)
    web.state = vm_pb2.VM_STATE_STOPPED
    async with asyncio.timeout(20):
        while {json.loads(line)["reference"] for line in await lines_of(process, 4)} != {"db"}:
            pass
    db.state = vm_pb2.VM_STATE_STOPPED
    code, err = await ended(process, None)
    assert code == 1
    subjects = [json.loads(line)["error"]["subject"] for line in err.splitlines()]
    assert subjects[0] == "web"  # while db went on
    assert sorted(subjects[1:]) == ["db", "web"]  # when nothing was left


async def test_a_vm_that_was_not_named_comes_and_goes(ingle: Ingle, world: World) -> None:
    process = await ingle.start("vm", "stats", "-w", "--interval", "100ms", "--json")
    web = world.add_vm("web")
    assert json.loads((await lines_of(process, 1))[0])["reference"] == "web"
    web.state = vm_pb2.VM_STATE_STOPPED
    world.add_vm("db")
    async with asyncio.timeout(20):
        while json.loads((await lines_of(process, 1))[0])["reference"] != "db":
            pass
    assert await ended(process) == (130, "")


@pytest.mark.parametrize("interval", ["10ms", "0", "soon"])
async def test_an_interval_that_makes_no_sense_is_refused(ingle: Ingle, interval: str) -> None:
    refused = await ingle("vm", "stats", "-w", "--interval", interval)
    assert refused.code == 2
    assert interval in refused.err


async def test_show_does_not_wait_long_for_a_guest_that_hangs(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    world.hung = True
    shown = (await ingle("vm", "show", "web")).text
    assert "problem       nothing within 1 s" in shown
    assert "activity" not in shown
    assert "nothing within 5 s" in (await ingle("vm", "health", "web")).text


async def test_show_tells_what_callers_do_in_a_vm_that_runs(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    world.add_vm("off", vm_pb2.VM_STATE_STOPPED)
    assert "activity      1 commands; idle for 3.50 s" in (await ingle("vm", "show", "web")).text
    assert json.loads((await ingle("vm", "show", "--json", "web")).out)["activity"]["idle"] == 3.5
    assert "activity" not in (await ingle("vm", "show", "off")).text
    assert json.loads((await ingle("vm", "show", "--json", "off")).out)["activity"] is None


@pytest.mark.parametrize(
    ("overflowed", "shown", "row"),
    [(False, "1.5G, room for 200M more", "0, room 200M"), (True, "1.5G, lost", "0, lost")],
)
async def test_a_disk_that_the_host_may_have_no_room_for_is_told(
    ingle: Ingle, world: World, overflowed: bool, shown: str, row: str
) -> None:
    web = world.add_vm("web")
    assert "changes" not in (await ingle("vm", "show", "web")).text
    world.problem = "its disk fills up"
    world.disk_changes = vm_pb2.DiskChanges(
        used_bytes=3 << 29, capacity_bytes=8 << 30, room_bytes=200 << 20, overflowed=overflowed
    )
    told = (await ingle("vm", "show", "web")).text
    assert f"changes       {shown}" in told
    assert "problem       its disk fills up" in told
    assert json.loads((await ingle("vm", "show", "--json", "web")).out)["disk_changes"]["room_bytes"] == 200 << 20
    assert row in (await ingle("vm", "stats")).text
    web.state = vm_pb2.VM_STATE_STOPPED
    told = (await ingle("vm", "show", "web")).text
    assert "changes" not in told
    assert "problem" not in told

"""A real guest that is saved goes on: where it was, elsewhere, and in several VMs at once that share its memory."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from free_ports import free_port
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.guest import ExecSpec, Input
from ingle.api_server.model.network import PublishedPort
from ingle.api_server.model.vm import Acceleration, LiveVmm
from ingle.api_server.ports.disk import Disk, DiskFormat
from ingle.api_server.ports.network import Link

from .engine_guests import SAID, SAYS, Guest, Guests, Saved, publishing, saved, shared_bytes

FORKS = 3
CHANGES = 12
SHARED = 8 * 2**20


async def test_a_guest_goes_on_after_it_was_saved_and_elsewhere_as_often_as_one_likes(
    guests: Guests, source: Guest, tmp_path: Path
) -> None:
    await source.vmm.pause()
    first = await saved(source, tmp_path / "first")
    assert {(file.name, file.stat().st_mode & 0o777) for file in first.memory.iterdir()} == {
        ("stream", 0o600),
        ("seal", 0o600),
    }
    again = await saved(source, tmp_path / "again")  # while it stands still
    await source.vmm.resume()
    assert await source.run(SAYS) == SAID
    for kept in (first, again):
        async with guests.running(await guests.plan(memory=kept.memory, disk=kept.disk)) as guest:
            assert await guest.run(SAYS) == SAID
            await guest.run("echo of another >/run/marker")
            await guest.vmm.pause()
            theirs = await saved(guest, tmp_path / f"of-{kept.memory.parent.name}")
        async with guests.running(await guests.plan(memory=theirs.memory, disk=theirs.disk)) as guest:
            assert (await guest.run(SAYS)).startswith("of another")
    assert await source.run(SAYS) == SAID


async def test_several_guests_share_one_memory_and_change_it_each_for_itself(
    guests: Guests, source: Guest, tmp_path: Path
) -> None:
    await source.vmm.pause()
    kept = await saved(source, tmp_path / "kept")
    await guests.engine.share((await guests.plan()).vm, kept.memory)
    names = {file.name: file.read_bytes() for file in kept.memory.iterdir()}
    assert set(names) == {"ram", "state", "seal"}
    async with AsyncExitStack() as stack:
        forks = []
        for number in range(FORKS):
            plan = await guests.plan(memory=kept.memory, disk=kept.disk)
            fork = await stack.enter_async_context(guests.running(plan))
            assert await fork.run(SAYS) == SAID
            await fork.run(f"echo fork {number} >/run/marker; echo fork {number} >/root/marker; sync")
            forks.append(fork)
        assert [await fork.run(SAYS) for fork in forks] == [f"fork {number}\n" * 2 for number in range(FORKS)]
        assert all(shared_bytes(fork.vmm.pid, kept.memory / "ram") > SHARED for fork in forks)
        await forks[0].vmm.pause()
        theirs = await saved(forks[0], tmp_path / "of-a-fork")
    assert {file.name: file.read_bytes() for file in kept.memory.iterdir()} == names
    async with guests.running(await guests.plan(memory=theirs.memory, disk=theirs.disk)) as guest:
        assert await guest.run(SAYS) == "fork 0\nfork 0\n"


async def test_a_guest_that_believes_in_its_old_server_listens_to_the_next(
    guests: Guests, source: Guest, tmp_path: Path
) -> None:
    """Much is on its way in both directions when it is saved, so that packets are cut wherever they are."""

    async def feed() -> None:
        async with source.channel.exec(ExecSpec(argv=("sh", "-c", "cat >/dev/null"), stdin=True)) as command:
            while True:
                await command.say(Input(bytes(65536)))

    flood = [asyncio.create_task(each) for each in (source.run("cat /dev/zero"), feed())]
    await asyncio.sleep(0.5)
    assert not any(task.done() for task in flood)
    await source.vmm.pause()
    kept = await saved(source, tmp_path / "kept")
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    for _ in range(2):
        async with guests.running(await guests.plan(memory=kept.memory, disk=kept.disk)) as guest:
            assert await guest.run(SAYS) == SAID


async def test_a_guest_that_goes_on_is_taken_over_by_another_server_and_saved_again(
    guests: Guests, kept: Saved, tmp_path: Path
) -> None:
    plan = await guests.plan(memory=kept.memory, disk=kept.disk)
    first = await guests.engine.launch(plan)
    await first.boot()
    live = LiveVmm(first.pid, first.start_time, Acceleration.TCG, plan.vm.created_at)
    await first.close()
    async with guests.adopted(plan, live) as guest:
        await guest.until_answers()
        assert await guest.run(SAYS) == SAID
        await guest.vmm.pause()
        theirs = await saved(guest, tmp_path / "again")
        await guest.vmm.close()
    async with guests.adopted(plan, live) as guest:
        await guest.vmm.resume()
        await guest.until_answers()
        assert await guest.run(SAYS) == SAID
        guest.vmm.signal(signal.SIGKILL)
        await guest.vmm.wait_gone()
        await guest.vmm.close()
    async with guests.running(await guests.plan(memory=theirs.memory, disk=theirs.disk)) as guest:
        assert await guest.run(SAYS) == SAID


async def test_a_server_that_comes_when_another_left_while_the_guest_stood_still_is_answered(
    guests: Guests, kept: Saved
) -> None:
    """The guest hears of both at once, and of what the second says perhaps before."""
    async with guests.running(await guests.plan(memory=kept.memory, disk=kept.disk)) as guest:
        guest.leave()
        with ExitStack() as servers:
            for _ in range(CHANGES):
                await guest.vmm.pause()
                servers.pop_all().close()
                await asyncio.sleep(0.05)
                dialler = Dialler()
                servers.callback(dialler.close)
                await guest.vmm.resume()
                await dialler.channel(guest.vmm.agent).ping(20.0)


async def test_a_guest_goes_on_with_other_ports_of_the_host(guests: Guests, kept: Saved) -> None:
    """And the one that was published is free for others."""
    serve = """perl -MIO::Socket::INET -e '$l = IO::Socket::INET->new(LocalPort => 80, Listen => 5, ReuseAddr => 1);
    open F, ">/run/listens"; while ($c = $l->accept) { print $c "from the guest\\n"; close $c }' >/dev/null 2>&1 &
    until test -e /run/listens; do sleep 0.2; done"""
    for port in (free_port(), free_port()):
        plan = publishing(await guests.plan(memory=kept.memory, disk=kept.disk), PublishedPort(port, 80))
        async with guests.running(plan) as guest:
            await guest.run(serve)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await asyncio.wait_for(reader.read(), 10.0) == b"from the guest\n"
            writer.close()


async def test_a_guest_with_two_processors_and_a_raw_disk_goes_on(guests: Guests, tmp_path: Path) -> None:
    plan = await guests.plan(vcpus=2)
    raw = tmp_path / "disk.raw"
    convert = ("qemu-img", "convert", "-f", "qcow2", "-O", "raw", plan.root_disk.path, raw)
    await asyncio.to_thread(subprocess.run, convert, check=True)
    async with guests.running(replace(plan, root_disk=Disk(raw, DiskFormat.RAW))) as guest:
        await guest.begin()
        await guest.vmm.pause()
        memory = (await saved(guest, tmp_path / "kept")).memory
    again = await guests.plan(memory=memory, vcpus=2)
    async with guests.running(replace(again, root_disk=Disk(raw, DiskFormat.RAW))) as guest:
        assert await guest.run(SAYS) == SAID
        assert await guest.run("nproc") == "2\n"


@pytest.fixture
def tap() -> Iterator[str]:
    """A tap that whoever opens it may use, with nobody on the other side."""
    name = f"ingtest{os.getpid() % 10**7}"
    subprocess.run(["ip", "tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr"], check=True)
    try:
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="makes a tap")
async def test_a_guest_behind_a_tap_goes_on_shared_or_not(guests: Guests, tap: str, tmp_path: Path) -> None:
    link = Link(tap, "02:00:00:00:00:07", "10.213.99.2", 24, "10.213.99.1")
    async with guests.running(await guests.plan(link=link)) as guest:
        await guest.begin()
        await guest.vmm.pause()
        kept = await saved(guest, tmp_path / "kept")
    await guests.engine.share((await guests.plan(link=link, memory=kept.memory)).vm, kept.memory)
    knock = """perl -MIO::Socket::INET -e 'IO::Socket::INET->new(PeerAddr => "10.213.99.1:1", Timeout => 1)'; true"""
    packets = Path(f"/sys/class/net/{tap}/statistics/rx_packets")
    async with guests.running(await guests.plan(link=link, memory=kept.memory, disk=kept.disk)) as guest:
        assert await guest.run(SAYS) == SAID
        said_itself = int(packets.read_text())
        await guest.run(knock)
        assert int(packets.read_text()) > said_itself, "nothing comes out of it"

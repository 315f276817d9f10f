"""Guests of the Firecracker engine itself, on the lab's KVM: what they do, how they end, how they are gone on with."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

import firecracker_api
from engine_contract import test_memory_failures
from ingle.api_server.adapters.firecracker.api import Api, Body
from ingle.api_server.adapters.firecracker.vmm import FirecrackerVmm
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.host.bounded_log import read_end
from ingle.api_server.model.errors import GuestError, Reason, ToolFailed
from ingle.api_server.model.vm import Acceleration, Image, Kernel, LiveVmm
from integration.conftest import kept, source
from integration.engine_guests import (
    FIRECRACKER,
    SAID,
    SAYS,
    TOKEN,
    Guest,
    Guests,
    Saved,
    processes_in,
    saved,
    saved_of,
    shared_bytes,
)
from lab.inside.commands import User

__all__ = ("kept", "source")

globals().update({name: test for name, test in vars(test_memory_failures).items() if name.startswith("test_")})

MEMORY = 2**27
END_SECONDS = 60.0
RESTORED = 3
SAVES, STREAMS = 8, 5


def empty(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture(autouse=True)
def described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request is as Firecracker's description of them has it."""
    ask = Api._ask

    async def checked(self: Api, method: str, path: str, body: Body | None, seconds: float) -> bytes:
        assert firecracker_api.problems(method, path, body) == []
        return await ask(self, method, path, body, seconds)

    monkeypatch.setattr(Api, "_ask", checked)


def guests_of(dev: User, root: Path) -> Guests:
    """Of the kernel and image that a user's server has."""
    prepared = dev.state.parents[1]
    (kernel,), (image,) = ((dev.state / kind).glob("[0-9a-f]*") for kind in ("kernels", "images"))
    shared = (kernel / "modules.squashfs").is_file()
    made = (datetime.now(UTC), "the lab's")
    return Guests(
        root,
        prepared,
        Kernel(kernel.name, (), "", 0, (), *made, disk_modules=int(shared)),
        Image(image.name, (), 0, *made),
        MEMORY,
        FIRECRACKER,
    )


@pytest.fixture
def guests(dev: User, tmp_path: Path) -> Guests:
    return guests_of(dev, tmp_path)


@pytest.fixture(scope="module")
def kept_once(dev: User, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return asyncio.run(saved_of(guests_of(dev, tmp_path_factory.mktemp("kept"))))


@pytest.fixture
async def guest(guests: Guests) -> AsyncIterator[Guest]:
    async with guests.running(await guests.plan()) as guest:
        yield guest


async def test_a_guest_does_what_it_is_asked_stands_still_and_is_taken_over(guests: Guests, guest: Guest) -> None:
    assert await guest.run("uname -s; stat -f -c %T /") == "Linux\next2/ext3\n"
    assert (await guest.run("cat /sys/class/misc/hw_random/rng_current")).startswith("virtio_rng")
    assert await guest.run("ls -d /sys/bus/virtio/drivers/virtio_balloon/virtio* | wc -l") == "1\n"
    assert len(await guest.run("head -c 3000000 /dev/zero | tr '\\0' x")) == 3_000_000
    answers = await asyncio.gather(*(guest.run(f"echo {number}") for number in range(20)))
    assert answers == [f"{number}\n" for number in range(20)]
    for _ in range(3):
        await guest.vmm.pause()
        with pytest.raises(GuestError) as silent:
            await guest.channel.ping(0.5)
        assert silent.value.reason is Reason.GUEST_UNREACHABLE
        await guest.vmm.resume()
        assert await guest.run("echo again") == "again\n"
    live = LiveVmm(guest.vmm.pid, guest.vmm.start_time, Acceleration.KVM, datetime.now(UTC))
    adopted = await guests.engine.adopt(guest.plan.vm, guest.plan.paths, live, TOKEN)
    assert adopted is not None
    async with Dialler() as dialler:
        await dialler.channel(adopted.agent).ping()
    await adopted.close()
    status = Path(f"/proc/{guest.vmm.pid}/status").read_text()
    assert "\nSeccomp:\t2\n" in status, "it has its own filter"


async def test_what_it_writes_to_its_disk_is_counted_while_it_runs_and_when_it_goes_on(
    guests: Guests, guest: Guest, tmp_path: Path
) -> None:
    async def written(guest: Guest) -> int:
        before = await guest.vmm.disk_traffic()
        await guest.run("head -c 3000000 /dev/urandom >/root/new; sync")
        after = await guest.vmm.disk_traffic()
        assert before is not None
        assert after is not None
        assert before.writes < after.writes
        assert after.reads <= after.read_bytes // 512
        return after.written_bytes - before.written_bytes

    for _ in range(2):
        assert 3_000_000 <= await written(guest) < 30_000_000
    await guest.vmm.pause()
    assert await guest.vmm.disk_traffic() is not None, "it can be asked while its guest stands still"
    kept = await saved(guest, tmp_path)
    async with guests.running(await guests.plan(memory=kept.memory, disk=kept.disk)) as one:
        assert 3_000_000 <= await written(one) < 30_000_000


@pytest.mark.parametrize(
    ("last_words", "failure", "restarts"),
    [
        ("", "", False),
        ("echo b >/proc/sysrq-trigger", "", True),
        ("echo c >/proc/sysrq-trigger", "the guest's kernel panicked: sysrq triggered crash", False),
    ],
    ids=["powered off", "reset", "panic"],
)
async def test_how_a_guest_ended_is_told(guest: Guest, last_words: str, failure: str, restarts: bool) -> None:
    if last_words:
        with pytest.raises(GuestError):
            await guest.run(f"echo 1 >/proc/sys/kernel/sysrq; {last_words}; sleep 100")
    else:
        await guest.channel.shutdown()
    assert await guest.vmm.wait_gone(END_SECONDS)
    assert (guest.vmm.failure, guest.vmm.restarts) == (failure, restarts)


async def test_a_guest_that_floods_its_console_fills_no_disk_and_goes_on(guest: Guest) -> None:
    assert isinstance(guest.vmm, FirecrackerVmm)
    log = guest.plan.paths.console_log
    limit = log.stat().st_size + 4096
    guest.vmm._process.limit_files(limit)
    await guest.run("head -c 20000 /dev/zero | tr '\\0' x >/dev/ttyS0")
    assert log.stat().st_size == limit
    guest.vmm.bound_logs()
    await guest.run("echo heard again >/dev/ttyS0")
    assert b"heard again" in read_end(log, 200)


async def test_a_guest_that_was_saved_answers_as_soon_as_it_goes_on(guest: Guest, tmp_path: Path) -> None:
    """Firecracker ends the streams of a guest that it saves, and new ones for as long as that takes."""
    for number in range(SAVES):
        await guest.vmm.pause()
        await guest.vmm.save(empty(tmp_path / f"memory-{number % 2}"))
        await guest.vmm.resume()
        answers = await asyncio.gather(*(guest.run(f"echo {number}") for _ in range(STREAMS)))
        assert answers == [f"{number}\n"] * STREAMS


async def test_a_guest_goes_on_after_it_was_saved_and_elsewhere_in_several_that_share_its_memory(
    guests: Guests, guest: Guest, tmp_path: Path
) -> None:
    await guest.begin()
    await guest.vmm.pause()
    kept = await saved(guest, tmp_path)
    ram = kept.memory / "ram"
    modes = {file.name: file.stat().st_mode & 0o777 for file in kept.memory.iterdir()}
    assert modes == {"ram": 0o600, "vmstate": 0o600, "seal": 0o600}
    assert ram.stat().st_size == MEMORY
    assert ram.stat().st_blocks * 512 < MEMORY, "zeros are holes"
    await guest.vmm.resume()
    assert await guest.run(SAYS) == SAID
    await guests.engine.share(guest.plan.vm, kept.memory)
    content = {file.name: file.read_bytes() for file in kept.memory.iterdir()}
    async with AsyncExitStack() as stack:
        restored = []
        for number in range(RESTORED):
            plan = await guests.plan(memory=kept.memory, disk=kept.disk)
            one = await stack.enter_async_context(guests.running(plan))
            assert await one.run(SAYS) == SAID
            await one.run(f"echo guest {number} >/run/marker; echo guest {number} >/root/marker; sync")
            restored.append(one)
        assert [await one.run(SAYS) for one in restored] == [f"guest {number}\n" * 2 for number in range(RESTORED)]
        assert min(shared_bytes(one.vmm.pid, ram) for one in restored) > MEMORY // 16
        await restored[0].vmm.pause()
        theirs = await saved(restored[0], tmp_path / "of-a-restored-one")
    assert await guest.run(SAYS) == SAID
    assert {file.name: file.read_bytes() for file in kept.memory.iterdir()} == content
    async with guests.running(await guests.plan(memory=theirs.memory, disk=theirs.disk)) as one:
        assert await one.run(SAYS) == "guest 0\n" * 2
    plan = await guests.plan(memory=kept.memory, disk=kept.disk)
    (kept.memory / "vmstate").write_bytes(content["vmstate"][:-100] + bytes(100))
    with pytest.raises(ToolFailed, match="vmstate is not as it was written"):
        await guests.engine.launch(plan)
    assert processes_in(plan.paths.state) == []

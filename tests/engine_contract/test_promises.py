"""What a guest may rely on, however it came to be. `docs/architecture.md`, "Guest boot and identity", has the table."""

import subprocess
from pathlib import Path

import pytest

from ingle.v1 import vm_pb2

from .disks import disk_of
from .guests import FORKS, FROM_MEMORY, SNAPSHOT, TIMER_SECONDS, WAYS, World

_CLOCK_SECONDS = 0.05
_LATE_SECONDS = 10.0  # of a machine that has much else to do
_CHECKED = ("boot", "wake", "restore", "fork-1")

VMS = tuple(way for way in WAYS if way != "kept")
"""Of which each is another VM: the one that was kept is restored."""

every_way = pytest.mark.parametrize("way", WAYS)
every_memory = pytest.mark.parametrize("way", FROM_MEMORY)


@every_way
def test_the_clock_is_the_hosts(world: World, way: str) -> None:
    least, most = world.seen[way].clock
    assert least <= _CLOCK_SECONDS
    assert most >= -_CLOCK_SECONDS


@every_way
def test_a_certificate_that_was_issued_just_now_is_valid(world: World, way: str) -> None:
    assert world.seen[way].told["certificate"] == "/run/certificate: OK"


@pytest.mark.parametrize("what", ["uuid", "urandom", "getrandom"])
def test_nobody_draws_what_another_one_draws(world: World, what: str) -> None:
    drawn = [seen.told[what] for seen in (*world.seen.values(), world.asleep)]
    assert all(drawn)
    assert len(set(drawn)) == len(WAYS) + 1, drawn


def test_a_program_that_goes_on_draws_what_no_other_one_draws(world: World) -> None:
    drawn = [world.seen[way].told["drawn_by_program"] for way in FROM_MEMORY]
    drawn.append(world.asleep.told["drawn_by_program"])
    assert len(set(drawn)) == len(FROM_MEMORY) + 1, drawn


@pytest.mark.parametrize("what", ["hostname", "machine_id", "mac"])
def test_each_vm_has_its_own(world: World, what: str) -> None:
    assert len({world.seen[way].told[what] for way in VMS}) == len(VMS)


@every_way
def test_it_knows_its_own_name(world: World, way: str) -> None:
    seen = world.seen[way]
    assert (seen.told["hostname"], seen.told["etc_hostname"]) == (seen.vm.name, seen.vm.name)


@pytest.mark.parametrize("what", ["hostname", "machine_id", "mac", "address", "host_key", "boot_id"])
def test_one_that_wakes_or_is_restored_is_who_it_was(world: World, what: str) -> None:
    assert world.seen["wake"].told[what] == world.asleep.told[what]
    assert world.seen["restore"].told[what] == world.seen["kept"].told[what]


@every_way
def test_its_address_is_the_one_of_its_network(world: World, way: str) -> None:
    """In one of its own all have the same."""
    seen = world.seen[way]
    assert seen.told["address"].partition("/")[0] == (seen.vm.address if world.shared else "10.0.2.15")


def test_a_token_opens_one_guest(world: World) -> None:
    """Also of those that go on from one memory, and of a VM before and after it was restored."""
    assert len({each.token for each in world.seen.values()}) == len(WAYS)
    assert world.seen["wake"].token == world.asleep.token


def test_host_keys_are_each_vms_own(world: World) -> None:
    assert [world.seen[way].told["host_key"] for way in ("boot", "warm")] == ["", ""], "the image has none"
    keys = {world.seen[way].told["host_key"] for way in ("wake", "kept", *FORKS)}
    assert len(keys) == 2 + len(FORKS)
    assert {world.seen[way].told["host_key"].partition(" ")[0] for way in FORKS} == {"ssh-ed25519"}


def test_the_boot_id_tells_boots_apart_and_not_guests(world: World) -> None:
    assert {seen.vm.boot_id == seen.told["boot_id"] for seen in world.seen.values()} == {True}
    boots = {way: seen.told["boot_id"] for way, seen in world.seen.items()}
    booted = boots.pop("boot")
    assert set(boots.values()) == {boots["warm"]}, "one guest has booted for all of them"
    assert booted != boots["warm"]


@every_memory
def test_what_was_in_memory_and_on_disk_is_there(world: World, way: str) -> None:
    name = "kept" if way in SNAPSHOT else "wake"
    told = world.seen[way].told
    assert (told["in_memory"], told["on_disk"]) == (f"in the memory of {name}", f"on the disk of {name}")


@pytest.mark.parametrize("way", ["boot", "warm"])
def test_nothing_of_another_guests_is_there(world: World, way: str) -> None:
    told = world.seen[way].told
    assert (told["in_memory"], told["on_disk"]) == ("", "")


@every_memory
def test_a_connection_within_a_guest_is_kept(world: World, way: str) -> None:
    assert world.seen[way].told["within"] == "kept"


@every_memory
def test_a_connection_to_others_is_kept_by_who_runs_on_and_told_to_be_over_elsewhere(world: World, way: str) -> None:
    """A fork whose address is another one can't say anything in its source's name, and hears of that when its kernel
    has given up; the other end of a restored one's has gone on meanwhile."""
    outward = world.seen[way].told["outward"]
    if way == "kept" or (world.shared and way == "wake"):
        assert outward == "kept"
    else:
        assert outward.startswith("ended: ") or (world.shared and outward == "silent")


@every_way
def test_a_timer_fires_once_and_when_it_has_to(world: World, way: str) -> None:
    begun, fired = world.timers[way]
    assert TIMER_SECONDS - 0.02 <= fired - begun <= TIMER_SECONDS + _LATE_SECONDS


@every_way
def test_the_kernel_has_nothing_to_complain_about(world: World, way: str) -> None:
    told = world.seen[way].told
    assert (told["file_system_errors"], told["complaints"], told["writes"]) == ("0", "0", "written")


@pytest.mark.parametrize("way", _CHECKED)
def test_a_check_of_the_file_system_finds_nothing(world: World, way: str, tmp_path: Path) -> None:
    vm = world.seen[way].vm
    world.server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id))
    with disk_of(world.server, vm, tmp_path) as raw:
        checked = subprocess.run(["e2fsck", "-fn", raw], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout

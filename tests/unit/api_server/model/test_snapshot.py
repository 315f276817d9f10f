"""Names of forks, what may be gone on from, and what a VM is that is put back."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ingle.api_server.model.errors import HostProblem, InvalidArgument, Reason
from ingle.api_server.model.network import PublishedPort
from ingle.api_server.model.snapshot import (
    MOST_FORKS,
    Snapshot,
    check_snapshot_name,
    fork_names,
    forked,
    restored,
)
from unit.api_server.vmms import VM

KEY = "QEMU 7.2\nkernel abc\nTSC 3000 MHz"
BEFORE = Snapshot(
    "0123456789ab",
    "before",
    0,
    datetime(2026, 1, 1, tzinfo=UTC),
    VM.id,
    VM.name,
    VM.settings,
    memory=True,
    memory_key=KEY,
)


def test_a_pattern_gives_each_fork_its_number() -> None:
    assert fork_names("try-{}", 3) == ["try-1", "try-2", "try-3"]
    assert fork_names("{}th", 2) == ["1th", "2th"]
    assert fork_names("one", 1) == ["one"]
    assert fork_names("one-{}", 1) == ["one-1"]
    assert fork_names("", 5) == []


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("same", 2),
        ("a-{}-{}", 2),
        ("{}{}", 1),
        ("{}", 0),
        ("{}", MOST_FORKS + 1),
        ("Try-{}", 2),
        ("-{}", 2),
        ("x" * 63 + "{}", 2),
        ("0123456789a{}", 2),
        ("localhost", 1),
    ],
)
def test_names_that_no_vm_can_have_are_refused(pattern: str, count: int) -> None:
    with pytest.raises(InvalidArgument):
        fork_names(pattern, count)


@pytest.mark.parametrize("name", ["", "Before", "be fore", "a/b", "0123456789ab", "x" * 64, "-a", "\x1b[2J"])
def test_a_name_that_no_snapshot_can_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_snapshot_name(name)


@pytest.mark.parametrize(
    ("now", "then_told", "now_told"),
    [
        (KEY.replace("7.2", "8.1"), "QEMU 7.2", "QEMU 8.1"),
        (KEY.replace("3000", "2400"), "TSC 3000 MHz", "TSC 2400 MHz"),
        (f"{KEY}\n-device more", "nothing", "-device more"),
    ],
)
def test_a_memory_of_another_engine_or_processor_is_refused_with_what_differs(
    now: str, then_told: str, now_told: str
) -> None:
    BEFORE.check_memory(KEY, "boot")
    replace(BEFORE, memory=False).check_memory(now, "boot")
    with pytest.raises(HostProblem) as refused:
        BEFORE.check_memory(now, "boot")
    assert refused.value.reason is Reason.SNAPSHOT_INCOMPATIBLE
    assert f"saved with {then_told!r} where now there is {now_told!r}" in refused.value.message
    assert refused.value.remedy == "use it where it was made; or boot"


def test_a_fork_publishes_no_ports_and_is_the_same_otherwise() -> None:
    published = replace(VM.settings, ports=(PublishedPort(8080, 80),))
    assert forked(published) == VM.settings


def test_a_vm_that_is_put_back_has_the_machine_of_then_and_the_place_of_now() -> None:
    then = replace(VM.settings, vcpus=4, memory_bytes=2**28, disk_bytes=2**33, env={"A": "then"})
    now = replace(VM.settings, ports=(PublishedPort(8080, 80),), labels={"team": "web"}, nat=False)
    back = restored(now, then)
    assert (back.vcpus, back.memory_bytes, back.disk_bytes, back.env) == (4, 2**28, 2**33, {"A": "then"})
    assert (back.ports, back.labels, back.nat) == (now.ports, now.labels, now.nat)

"""The state machine, and the rules a wish must keep."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.api_server.model.errors import Conflict, IngleError, InvalidArgument, Reason
from ingle.api_server.model.ids import is_dns_label, is_vm_id, new_op_id, new_vm_id, new_vm_name
from ingle.api_server.model.spec import (
    GIB,
    MIB,
    Defaults,
    HostLimits,
    VmSpec,
    check_memory_holds,
    size_text,
    whole_sectors,
)
from ingle.api_server.model.vm import Kernel, VmState, check_move

LEGAL = {
    (VmState.CREATING, VmState.STOPPED),
    (VmState.CREATING, VmState.STARTING),
    (VmState.STOPPED, VmState.STARTING),
    (VmState.STOPPED, VmState.ERROR),
    (VmState.STARTING, VmState.RUNNING),
    (VmState.STARTING, VmState.STOPPED),
    (VmState.STARTING, VmState.ERROR),
    (VmState.STARTING, VmState.HIBERNATED),
    (VmState.STARTING, VmState.PAUSED),
    (VmState.RUNNING, VmState.STOPPING),
    (VmState.RUNNING, VmState.STOPPED),
    (VmState.RUNNING, VmState.ERROR),
    (VmState.RUNNING, VmState.PAUSED),
    (VmState.PAUSED, VmState.RUNNING),
    (VmState.PAUSED, VmState.HIBERNATED),
    (VmState.PAUSED, VmState.STOPPING),
    (VmState.PAUSED, VmState.STOPPED),
    (VmState.PAUSED, VmState.ERROR),
    (VmState.HIBERNATED, VmState.STARTING),
    (VmState.HIBERNATED, VmState.STOPPED),
    (VmState.HIBERNATED, VmState.ERROR),
    (VmState.STOPPING, VmState.STOPPED),
    (VmState.STOPPING, VmState.RUNNING),
    (VmState.STOPPING, VmState.PAUSED),
    (VmState.STOPPING, VmState.ERROR),
    (VmState.ERROR, VmState.STARTING),
    (VmState.ERROR, VmState.STOPPED),
}

HOST = HostLimits(vcpus=4, memory_bytes=8 * GIB)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(VmState, VmState)), ids=lambda state: state.value)
def test_only_legal_moves_are_allowed(old: VmState, new: VmState) -> None:
    if (old, new) in LEGAL:
        check_move("demo", old, new)
        return
    with pytest.raises(Conflict) as refused:
        check_move("demo", old, new)
    assert refused.value.reason is Reason.WRONG_STATE
    assert old.value in refused.value.message
    assert new.value in refused.value.message


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        (VmSpec(vcpus=0), "1 to 4"),
        (VmSpec(vcpus=5), "1 to 4"),
        (VmSpec(memory_bytes=64 * MIB - 1), "64 MiB to 8 GiB"),
        (VmSpec(memory_bytes=8 * GIB + 1), "64 MiB to 8 GiB"),
        (VmSpec(disk_bytes=0), "16 TiB"),
        (VmSpec(disk_bytes=2**63), "16 TiB"),
        (VmSpec(name="Upper"), "DNS label"),
        (VmSpec(name="-x"), "DNS label"),
        (VmSpec(name="a" * 64), "DNS label"),
        (VmSpec(name="a.b"), "DNS label"),
        (VmSpec(name="localhost"), "/etc/hosts"),
        (VmSpec(name="ip6-localhost"), "/etc/hosts"),
        (VmSpec(env={"A=B": "c"}), "letters, digits"),
        (VmSpec(env={"": "c"}), "letters, digits"),
        (VmSpec(env={"A": "b\0c"}), "NUL"),
        (VmSpec(disk_backend="zfs"), "qcow2"),
        (VmSpec(labels={"": "web"}), "63 of a-z"),
        (VmSpec(labels={"Team": "web"}), "63 of a-z"),
        (VmSpec(labels={"team.": "web"}), "63 of a-z"),
        (VmSpec(labels={"a" * 64: "web"}), "63 of a-z"),
        (VmSpec(labels={"team": "w\x1b[2J"}), "255 printable"),
        (VmSpec(labels={"team": "w" * 256}), "255 printable"),
        (VmSpec(labels={f"k{number}": "" for number in range(65)}), "a VM can have 64"),
    ],
)
def test_what_is_out_of_range_is_refused_with_what_is_allowed(spec: VmSpec, allowed: str) -> None:
    with pytest.raises(InvalidArgument, match=allowed):
        spec.check(HOST)


def test_the_edges_of_every_range_are_allowed() -> None:
    VmSpec(name="a", vcpus=1, memory_bytes=64 * MIB, disk_bytes=1).check(HOST)
    VmSpec(labels={"a" * 63: "w" * 255, "a": "", "com.example/team-1_x": "ü"}).check(HOST)
    VmSpec(name="a" * 63, vcpus=4, memory_bytes=8 * GIB, disk_bytes=16 * 1024 * GIB).check(HOST)


def test_the_least_memory_is_what_the_kernel_boots_in() -> None:
    kernel = Kernel("a" * 64, ("debian",), "6.1", 53881326, (), datetime.now(UTC), "a test")
    with pytest.raises(InvalidArgument, match="kernel debian needs at least 96 MiB") as refused:
        check_memory_holds(96 * MIB - 1, kernel)
    assert refused.value.remedy == "--memory 96M"
    check_memory_holds(96 * MIB, kernel)
    with pytest.raises(InvalidArgument, match="192 MiB"):
        check_memory_holds(96 * MIB, replace(kernel, size_bytes=150 * MIB))
    # A disk is no part of what is in its memory.
    check_memory_holds(96 * MIB, replace(kernel, size_bytes=150 * MIB, disk_bytes=100 * MIB))


def test_zero_is_a_value_and_never_means_the_default() -> None:
    with pytest.raises(IngleError):
        VmSpec(vcpus=0).with_defaults(Defaults()).check(HOST)


@given(st.text(max_size=80))
def test_a_dns_label_is_what_every_resolver_takes(text: str) -> None:
    if is_dns_label(text):
        assert text == text.lower()
        assert 1 <= len(text) <= 63
        assert not text.startswith("-")
        assert not text.endswith("-")
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_generated_names_and_ids_are_valid() -> None:
    assert all(is_dns_label(new_vm_name()) for _ in range(200))
    assert is_vm_id(new_vm_id())
    assert new_op_id().startswith("op-")
    assert len(new_op_id()) == 15


@given(st.integers(min_value=1, max_value=2**50))
def test_disks_are_whole_sectors_and_never_smaller_than_asked(size: int) -> None:
    assert whole_sectors(size) % 512 == 0
    assert 0 <= whole_sectors(size) - size < 512


def test_sizes_are_told_in_mib() -> None:
    assert size_text(64 * MIB) == "64 MiB"
    assert size_text(GIB) == "1 GiB"
    assert size_text(GIB + GIB // 2) == "1.50 GiB"
    assert size_text(MIB + MIB // 2) == "1.50 MiB"
    assert size_text(989_560_464_998_400) == "900 TiB"
    assert [size_text(size) for size in (0, 700, 4096)] == ["0 bytes", "700 bytes", "4 KiB"]

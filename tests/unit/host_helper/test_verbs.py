"""What each verb makes of a state, and what it promises to be there."""

import pytest

from ingle.host_helper.errors import InUse, Refused
from ingle.host_helper.names import LOOSE
from ingle.host_helper.policy import parse
from ingle.host_helper.state import Device, Limit, Nat, Network, Protocol, Published, Resource, State, Tap
from ingle.host_helper.verbs import (
    CreateDevice,
    CreateTap,
    DeleteTap,
    EnsureNetwork,
    LimitTap,
    RemoveDevice,
    ResizeDevice,
)

A, B = "a" * 12, "b" * 12
IMAGE, OTHER_IMAGE = "1" * 64, "2" * 64
POLICY = parse({"user": 4242, "max_devices": 2}, "here")
DISK = Device(A, IMAGE, 4096)


def test_what_was_made_or_resized_is_named_whether_it_was_there_or_not() -> None:
    for state in (State(), State([Network(0), Tap(2, A), DISK])):
        ensure = EnsureNetwork(0)
        assert ensure.named(ensure.edit(state, POLICY)) == [Network(0)]
        assert CreateTap(A, 2).named(state) == [Tap(2, A)]
        assert CreateDevice(DISK).named(state) == [DISK]
    resize = ResizeDevice(A, 8192)
    assert resize.named(resize.edit(State([DISK]), POLICY)) == [Device(A, IMAGE, 8192)]


def test_deleting_a_tap_takes_its_own_nat_and_ports_and_no_others() -> None:
    kept: list[Resource] = [Network(0), Tap(3, B), Nat(3), Limit(3, 9), Published(Protocol.TCP, 81, 3, 80)]
    gone: list[Resource] = [Tap(2, A), Nat(2), Limit(2, 9)]
    gone += [Published(Protocol.TCP, 80, 2, 80), Published(Protocol.UDP, 80, 2, 80)]
    assert DeleteTap(A, 2).edit(State([*kept, *gone]), POLICY) == State(kept)


def test_a_limit_is_a_taps_the_last_one_counts_and_none_takes_it_away() -> None:
    state = State([Network(0), Tap(2, A)])
    with pytest.raises(Refused, match="not b"):
        LimitTap(B, 2, 1 << 20).edit(state, POLICY)
    with pytest.raises(Refused, match="slot 3 is nobody's"):
        LimitTap(A, 3, 1 << 20).edit(state, POLICY)
    limited = LimitTap(A, 2, 2 << 20).edit(LimitTap(A, 2, 1 << 20).edit(state, POLICY), POLICY)
    assert limited == state.plus(Limit(2, 2 << 20))
    assert LimitTap(A, 2, 0).edit(limited, POLICY) == state
    assert LimitTap(A, 3, 0).edit(state, POLICY) == state


def test_a_tap_that_leads_nowhere_takes_no_network() -> None:
    loose = CreateTap(A, LOOSE.start).edit(State(), POLICY)
    assert loose == State([Tap(LOOSE.start, A)])
    with pytest.raises(InUse):
        CreateTap(B, LOOSE.start).edit(loose, POLICY)
    with pytest.raises(Refused, match="there is no network"):
        CreateTap(A, 2).edit(loose, POLICY)


def test_a_device_is_over_one_image_never_shrinks_and_is_one_of_so_many() -> None:
    state = CreateDevice(DISK).edit(State(), POLICY)
    assert CreateDevice(DISK).edit(state, POLICY) == state
    for other in (Device(A, OTHER_IMAGE, 4096), Device(A, IMAGE, 8192)):
        with pytest.raises(InUse):
            CreateDevice(other).edit(state, POLICY)
    with pytest.raises(Refused, match="devices never shrink"):
        ResizeDevice(A, 4095).edit(state, POLICY)
    with pytest.raises(Refused, match="has no device"):
        ResizeDevice(B, 4096).edit(state, POLICY)
    full = state.plus(Device(B, IMAGE, 4096))
    with pytest.raises(InUse, match="max_devices"):
        CreateDevice(Device("c" * 12, IMAGE, 4096)).edit(full, POLICY)
    assert RemoveDevice(A).edit(RemoveDevice(A).edit(full, POLICY), POLICY) == State([Device(B, IMAGE, 4096)])

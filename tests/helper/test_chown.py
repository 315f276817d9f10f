"""A VM's file gets another owner, and nothing else ever does, whatever is done to the directories meanwhile."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import refused
from helper.process import UID, VM_UIDS, Helper, eventually, vm
from ingle.helper.v1 import helper_pb2 as pb

TO = VM_UIDS[0]


@pytest.fixture
def disk(helper: Helper) -> Path:
    """vms/ID/disk.raw of the API server's user, in a directory that only it can enter."""
    directory = helper.state / "vms" / vm(1)
    directory.mkdir(mode=0o700, exist_ok=True)
    os.chown(directory, UID, UID)
    for old in directory.iterdir():
        old.unlink()
    return belonging_to(UID, directory / "disk.raw")


def belonging_to(uid: int, path: Path) -> Path:
    path.write_bytes(b"disk")
    path.chmod(0o600)
    os.chown(path, uid, uid)
    return path


def request(uid: int = TO, file: "pb.VmFile.ValueType" = pb.VM_FILE_RAW_DISK) -> pb.ChownVmFileRequest:
    return pb.ChownVmFileRequest(vm_id=vm(1), file=file, uid=uid)


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def test_a_file_goes_to_a_vms_uid_and_comes_back(helper: Helper, disk: Path) -> None:
    for uid in (TO, TO, UID, UID):
        helper.stub.ChownVmFile(request(uid))
        assert owner(disk) == (uid, uid)


def test_a_file_of_one_vms_uid_does_not_go_to_anothers(helper: Helper, disk: Path) -> None:
    helper.stub.ChownVmFile(request(TO))
    assert refused(helper.stub.ChownVmFile, request(TO + 1)).reason == "FILE_PERMISSION_DENIED"
    assert owner(disk) == (TO, TO)


@pytest.mark.parametrize("uid", [0, 1, 65534, VM_UIDS[1] + 1])
def test_a_file_of_anybody_else_stays_theirs(helper: Helper, disk: Path, uid: int) -> None:
    os.chown(disk, uid, uid)
    for to in (TO, UID):
        assert refused(helper.stub.ChownVmFile, request(to)).reason == "FILE_PERMISSION_DENIED"
    assert owner(disk) == (uid, uid)


def test_what_is_not_there_is_not_found(helper: Helper, disk: Path) -> None:
    error = refused(helper.stub.ChownVmFile, request(file=pb.VM_FILE_QCOW2_DISK))
    assert error.reason == "FILE_NOT_FOUND"
    assert str(helper.state) not in error.message


def test_links_fifos_directories_and_sockets_are_refused(helper: Helper, disk: Path) -> None:
    victim = belonging_to(UID, disk.with_name("victim"))
    disk.unlink()
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: disk.symlink_to(victim), "SYMLINK_REFUSED"),
        (lambda: disk.symlink_to("/etc/passwd"), "SYMLINK_REFUSED"),
        (lambda: disk.symlink_to("nowhere"), "SYMLINK_REFUSED"),
        (lambda: disk.hardlink_to(victim), "NOT_A_REGULAR_FILE"),
        (lambda: os.mkfifo(disk), "NOT_A_REGULAR_FILE"),
        (lambda: os.mknod(disk, 0o60666, os.makedev(7, 0)), "NOT_A_REGULAR_FILE"),
    ]
    for make, reason in cases:
        make()
        assert refused(helper.stub.ChownVmFile, request()).reason == reason
        disk.unlink()
    disk.mkdir()
    os.chown(disk, UID, UID)
    assert refused(helper.stub.ChownVmFile, request()).reason == "NOT_A_REGULAR_FILE"
    disk.rmdir()
    assert owner(victim) == (UID, UID)


@pytest.mark.parametrize("part", ["vms", vm(1)])
def test_a_link_in_place_of_a_directory_is_refused(helper: Helper, disk: Path, part: str) -> None:
    place = disk.parent if part == vm(1) else disk.parent.parent
    aside = place.with_name("aside")
    place.rename(aside)
    place.symlink_to(aside)
    try:
        assert refused(helper.stub.ChownVmFile, request()).reason == "SYMLINK_REFUSED"
    finally:
        place.unlink()
        aside.rename(place)
    assert owner(disk) == (UID, UID)


def test_one_that_fails_in_an_apply_takes_back_what_came_before(helper: Helper, disk: Path) -> None:
    changes = [
        pb.Change(ensure_network=pb.EnsureNetworkRequest(network=0)),
        pb.Change(create_tap=pb.CreateTapRequest(vm_id=vm(1), slot=2)),
        pb.Change(chown_vm_file=request()),
        pb.Change(chown_vm_file=request(file=pb.VM_FILE_COW)),
    ]
    assert refused(helper.stub.Apply, pb.ApplyRequest(changes=changes)).reason == "FILE_NOT_FOUND"
    assert owner(disk) == (UID, UID)
    eventually(lambda: helper.namespace.links() == {"lo"})
    assert helper.stub.List(pb.ListRequest()).taps == []


@pytest.mark.parametrize(
    "seconds", [3.0, pytest.param(60.0, marks=pytest.mark.skipif("not config.getoption('--slow')", reason="--slow"))]
)
def test_a_link_swapped_in_at_any_instant_changes_nothing_of_others(
    helper: Helper, disk: Path, seconds: float, record_property: Callable[[str, object], None]
) -> None:
    victims = [belonging_to(0, helper.root / "roots"), belonging_to(65534, helper.root / "nobodys")]
    real, symbolic, hard = (disk.with_name(name) for name in ("real", "symbolic", "hard"))
    stopping = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stopping.is_set():
            for name in (real, symbolic, hard):
                os.rename(name, disk)  # atomic: at every instant one of the three is disk.raw
                if name is real:
                    real.write_bytes(b"")
                    os.chown(real, UID, UID)
                elif name is symbolic:
                    symbolic.symlink_to(victims[swaps % 2])
                else:
                    os.link(victims[swaps % 2], hard)
                swaps += 1

    belonging_to(UID, real)
    symbolic.symlink_to(victims[0])
    os.link(victims[1], hard)
    swapper = threading.Thread(target=swap)
    swapper.start()
    done = refusals = 0
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            try:
                helper.stub.ChownVmFile(request())
                done += 1
            except Exception:
                refusals += 1
            assert [owner(victim) for victim in victims] == [(0, 0), (65534, 65534)]
    finally:
        stopping.set()
        swapper.join()
        for path in (*victims, *disk.parent.iterdir()):
            path.unlink()
    for name, count in ("swaps", swaps), ("owners changed", done), ("refusals", refusals):
        record_property(name, count)
    assert done > 0, "the race was never lost to us"
    assert refusals > 0, "the race was never won"

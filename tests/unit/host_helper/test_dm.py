"""What is said to device-mapper and loop devices, byte for byte, and what is understood of their answers."""

import os
import struct

import pytest

from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper import dm, loop
from ingle.host_helper.devices import base_table, snapshot_table, state_of
from ingle.host_helper.dm import Target, pack, unpack_names, unpack_targets


def test_sizes_and_numbers_are_the_kernels() -> None:
    # As a C compiler gives them for linux/dm-ioctl.h and linux/loop.h, on amd64 and arm64 alike.
    assert (dm.HEADER.size, dm.TARGET.size) == (312, 40)
    assert (loop.INFO.size, len(loop.pack(3, "tag", read_only=True))) == (232, 304)
    assert dm.number(3) == 0xC138FD03  # DM_DEV_CREATE
    assert dm.number(9) == 0xC138FD09  # DM_TABLE_LOAD


def test_a_request_has_its_fields_where_the_kernel_looks() -> None:
    data = pack("ingle-x", "INGLE-x", 0, [Target(0, 16, "linear", "7:1 0"), Target(16, 8, "zero", "")])
    assert struct.unpack_from("=3IIII", data) == (4, 0, 0, len(data), 312, 2)
    assert data[48:56] == b"ingle-x\0"
    assert data[48 + 128 : 48 + 136] == b"INGLE-x\0"
    start, length, _, following, kind = dm.TARGET.unpack_from(data, 312)
    assert (start, length, following, kind.rstrip(b"\0")) == (0, 16, 48, b"linear")
    assert data[352:360] == b"7:1 0\0\0\0"
    start, length, _, following, kind = dm.TARGET.unpack_from(data, 312 + 48)
    assert (start, length, following, kind.rstrip(b"\0")) == (16, 8, 48, b"zero")


def test_a_table_that_comes_back_is_understood() -> None:
    # In an answer `next` counts from the first target, in a request from the target itself.
    first, second = b"7:1 0\0\0\0", b"\0" * 8
    body = dm.TARGET.pack(0, 16, 0, 48, b"linear") + first + dm.TARGET.pack(16, 8, 0, 96, b"zero") + second
    header = dm.HEADER.pack(4, 47, 0, 500, 312, 2, 0, 0, 0, 0, 0, b"", b"")
    assert unpack_targets(header + body) == [Target(0, 16, "linear", "7:1 0"), Target(16, 8, "zero", "")]


def test_names_that_come_back_are_understood() -> None:
    def entry(name: bytes, following: int) -> bytes:
        return (struct.pack("=QI", 64768, following) + name + b"\0").ljust(following or 40, b"\0")

    header = dm.HEADER.pack(4, 47, 0, 500, 312, 0, 0, 0, 0, 0, 0, b"", b"")
    assert unpack_names(header + entry(b"vg-root", 32) + entry(b"ingle-x", 0)) == ["vg-root", "ingle-x"]
    assert unpack_names(header + bytes(40)) == []


def test_a_disk_is_its_image_zeros_behind_it_and_a_snapshot_of_both() -> None:
    assert base_table("7:1", 8192, 8192) == [Target(0, 16, "linear", "7:1 0")]
    assert base_table("7:1", 8192, 12288) == [Target(0, 16, "linear", "7:1 0"), Target(16, 8, "zero", "")]
    assert snapshot_table(os.makedev(254, 3), "7:2", 12288) == [Target(0, 24, "snapshot", "254:3 7:2 PO 8")]


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        ("16/2048 8", (pb.SNAPSHOT_STATE_VALID, 8192, 1048576)),
        ("Overflow", (pb.SNAPSHOT_STATE_OVERFLOWED, 0, 0)),
        ("Invalid", (pb.SNAPSHOT_STATE_OVERFLOWED, 0, 0)),
    ],
)
def test_a_snapshot_says_how_it_is(status: str, meaning: tuple[int, int, int]) -> None:
    assert state_of(status) == meaning


def test_a_loop_device_is_given_its_tag_and_goes_with_its_last_user() -> None:
    config = loop.pack(5, "ingle-image-ff", read_only=True)
    assert struct.unpack_from("=II", config) == (5, 512)
    info = loop.INFO.unpack_from(config, 8)
    assert info[8] == 1 | 4
    assert info[9].rstrip(b"\0") == b"ingle-image-ff"
    assert loop.INFO.unpack_from(loop.pack(5, "x", read_only=False), 8)[8] == 4

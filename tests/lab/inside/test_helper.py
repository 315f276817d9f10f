"""The root helper as its units run it: three capabilities, a closed world, and for disks device-mapper."""

import asyncio
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness import refused
from ingle.api_server.adapters.disk import SnapshotDisk
from ingle.api_server.adapters.helper import AbsentDevices
from ingle.api_server.ports.disk import Disk, DiskFormat
from ingle.helper.v1 import helper_pb2 as pb
from ingle.helper.v1 import helper_pb2_grpc
from lab.inside.commands import lab_run

REPOSITORY = Path(__file__).parents[3]
POLICY = Path("/etc/ingle/helper.toml")
STATE = Path("/var/lib/ingle-lab")
IMAGE, OTHER_IMAGE = "1" * 64, "2" * 64
MIB = 1 << 20
PATIENT = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "waitForReady": True,
                "timeout": "180s",
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "5s",
                    "backoffMultiplier": 3,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
"""As the API server calls: one more time when the helper ended before it had answered. A connection to one that was
just killed may still look alive."""


def vm(number: int) -> str:
    return f"{number:012x}"


@pytest.fixture(scope="module")
def uid() -> Iterator[int]:
    """The API server's user, with a policy and a state of its own."""
    lab_run("useradd", "--system", "--no-create-home", "ingle-lab")
    uid = int(lab_run("id", "-u", "ingle-lab"))
    kept = POLICY.read_bytes() if POLICY.exists() else None
    POLICY.parent.mkdir(mode=0o755, exist_ok=True)
    POLICY.write_text(f'user = "ingle-lab"\nstate_root = "{STATE}"\nspare_taps = 0\n')
    POLICY.chmod(0o644)
    for directory in (STATE, STATE / "vms", STATE / "images"):
        directory.mkdir(mode=0o700)
        os.chown(directory, uid, uid)
    yield uid
    lab_run("rm", "-r", str(STATE))
    lab_run("userdel", "ingle-lab")
    if kept is None:
        POLICY.unlink()
    else:
        POLICY.write_bytes(kept)


@contextmanager
def running(unit: str, socket: str) -> Iterator[Any]:
    """A unit of deploy/, under another name, and its methods."""
    text = (REPOSITORY / "deploy" / unit).read_text().replace("@PREFIX@", "/opt/ingle")
    text = text.replace("/var/lib/ingle", str(STATE))
    name = f"lab-{unit}"
    Path("/run/systemd/system", name).write_text(text)
    lab_run("systemctl", "daemon-reload")
    started = subprocess.run(["systemctl", "start", name], check=False)
    assert started.returncode == 0, lab_run("journalctl", "--no-pager", "-u", name)
    with grpc.insecure_channel(f"unix:{socket}", options=[("grpc.service_config", PATIENT)]) as channel:
        yield helper_pb2_grpc.HelperServiceStub(channel)
    lab_run("systemctl", "stop", name)
    Path("/run/systemd/system", name).unlink()
    lab_run("systemctl", "daemon-reload")


@pytest.fixture(scope="module")
def network_unit(uid: int) -> Iterator[Any]:
    """One for all tests: it takes seconds to start."""
    with running("ingle-helper.service", "/run/ingle-helper/helper.sock") as stub:
        yield stub


@pytest.fixture(scope="module")
def disks_unit(uid: int) -> Iterator[Any]:
    lab_run("modprobe", "-a", "loop", "dm-snapshot")
    with running("ingle-helper-dm.service", "/run/ingle-helper-dm/helper.sock") as stub:
        yield stub


@pytest.fixture
def network(network_unit: Any) -> Iterator[Any]:
    yield network_unit
    network_unit.Reconcile(pb.ReconcileRequest())


@pytest.fixture
def disks(disks_unit: Any) -> Iterator[Any]:
    yield disks_unit
    disks_unit.Reconcile(pb.ReconcileRequest())
    lab_run("udevadm", "settle")  # it has loop devices open for a moment, which go when nobody has


def belonging(uid: int, path: Path, content: bytes = b"", size: int = 0, mode: int = 0o600) -> Path:
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700)
        os.chown(path.parent, uid, uid)
    path.write_bytes(content)
    os.truncate(path, max(size, len(content)))
    path.chmod(mode)
    os.chown(path, uid, uid)
    return path


def image(uid: int, name: str = IMAGE, letter: bytes = b"i") -> Path:
    return belonging(uid, STATE / "images" / name / "rootfs.ext4", letter * MIB, mode=0o444)


def cow(uid: int, number: int, size: int = 4 * MIB) -> Path:
    return belonging(uid, STATE / "vms" / vm(number) / "disk.cow", size=size)


def create(disks: Any, number: int, size: int = 2 * MIB, name: str = IMAGE) -> pb.SnapshotDevice:
    request = pb.CreateSnapshotDeviceRequest(vm_id=vm(number), image_id=name, size_bytes=size)
    device: pb.SnapshotDevice = disks.CreateSnapshotDevice(request).device
    return device


def loops() -> list[dict[str, Any]]:
    listed = lab_run("losetup", "--json", "--list", "--output", "NAME,RO,BACK-FILE")
    found: list[dict[str, Any]] = json.loads(listed)["loopdevices"] if listed.strip() else []
    return [each for each in found if str(STATE) in each["back-file"]]


def mapped() -> set[str]:
    return {line.split()[0] for line in lab_run("dmsetup", "ls").splitlines() if line.startswith("ingle-")}


# -- the unit for the network


def test_taps_nat_ports_and_owners_take_three_capabilities(network: Any, uid: int) -> None:
    pid = lab_run("systemctl", "show", "--property=MainPID", "--value", "lab-ingle-helper.service").strip()
    status = Path(f"/proc/{pid}/status").read_text()
    mask = 1 << 12 | 1 << 0 | 1 << 2  # CAP_NET_ADMIN, CAP_CHOWN, CAP_DAC_READ_SEARCH: linux/capability.h
    assert f"CapEff:\t{mask:016x}" in status
    assert f"CapBnd:\t{mask:016x}" in status
    assert "NoNewPrivs:\t1" in status
    belonging(uid, STATE / "vms" / vm(1) / "disk.raw")
    ways = Path("/proc/sys/net/ipv4/conf")
    assert (ways / "all/forwarding").read_text() == "0\n"
    lab_run("iptables", "-P", "FORWARD", "DROP")
    try:
        port = pb.PublishedPort(vm_id=vm(1), slot=2, protocol=pb.PROTOCOL_TCP, host_port=8080, vm_port=80)
        changes = [
            pb.Change(ensure_network=pb.EnsureNetworkRequest(network=0)),
            pb.Change(create_tap=pb.CreateTapRequest(vm_id=vm(1), slot=2)),
            pb.Change(set_nat=pb.SetNatRequest(vm_id=vm(1), slot=2, enabled=True)),
            pb.Change(publish_port=pb.PublishPortRequest(port=port)),
            pb.Change(chown_vm_file=pb.ChownVmFileRequest(vm_id=vm(1), file=pb.VM_FILE_RAW_DISK, uid=2_000_001)),
        ]
        network.Apply(pb.ApplyRequest(changes=changes))
        assert network.FindOverlaps(pb.FindOverlapsRequest()) == pb.FindOverlapsResponse()
        assert "user ingle-lab " in lab_run("ip", "-details", "link", "show", "ingt2")
        assert "10.213.0.2" in lab_run("nft", "list", "set", "inet", "ingle", "nat4")
        assert "ingb+" in lab_run("iptables", "-S", "FORWARD")
        assert any((way / "forwarding").read_text() == "1\n" for way in ways.iterdir() if way.name != "ingb0")
        assert (STATE / "vms" / vm(1) / "disk.raw").stat().st_uid == 2_000_001
        network.Reconcile(pb.ReconcileRequest())
        assert "ingb+" not in lab_run("iptables", "-S", "FORWARD")
        assert all((way / "forwarding").read_text() == "0\n" for way in ways.iterdir())
        assert "ing" not in lab_run("nft", "list", "tables")
        lab_run("ip", "link", "show", "ingt2", code=1)
    finally:
        lab_run("iptables", "-P", "FORWARD", "ACCEPT")
        (STATE / "vms" / vm(1) / "disk.raw").unlink()


def test_taps_outlive_a_restart_of_the_unit_and_a_kill(network: Any) -> None:
    network.EnsureNetwork(pb.EnsureNetworkRequest(network=0))
    network.CreateTap(pb.CreateTapRequest(vm_id=vm(1), slot=2))
    index = Path("/sys/class/net/ingt2/ifindex").read_text()
    lab_run("systemctl", "restart", "lab-ingle-helper.service")
    lab_run("systemctl", "kill", "--signal=KILL", "lab-ingle-helper.service")
    (tap,) = network.List(pb.ListRequest()).taps
    assert (tap.vm_id, tap.present) == (vm(1), True)
    assert Path("/sys/class/net/ingt2/ifindex").read_text() == index


# -- the unit for disks


def test_a_disk_is_its_image_until_it_is_written_to(disks: Any, uid: int) -> None:
    source = image(uid)
    cow(uid, 1)
    device = create(disks, 1)
    assert (device.state, device.size_bytes) == (pb.SNAPSHOT_STATE_VALID, 2 * MIB)
    path = Path(device.path)
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (uid, 0o600)
    lab_run("runuser", "-u", "ingle-lab", "--", "sh", "-c", f"echo changed | dd of={path} conv=notrunc oflag=sync")
    content = path.read_bytes()
    assert content[:10] == b"changed\nii"
    assert content[MIB - 1 : MIB + 1] == b"i\0"
    assert len(content) == 2 * MIB
    assert source.read_bytes() == b"i" * MIB
    assert disks.List(pb.ListRequest()).devices[0].used_bytes > device.used_bytes


def test_vms_of_an_image_share_its_loop_device_and_it_goes_with_the_last(disks: Any, uid: int) -> None:
    image(uid)
    image(uid, OTHER_IMAGE, b"o")
    for number in (1, 2, 3):
        cow(uid, number)
        create(disks, number, name=OTHER_IMAGE if number == 3 else IMAGE)
    assert sorted((Path(each["back-file"]).name, bool(each["ro"])) for each in loops()) == [
        *[("disk.cow", False)] * 3,
        *[("rootfs.ext4", True)] * 2,
    ]
    for number in (1, 2, 3):
        for _ in range(2):
            disks.RemoveSnapshotDevice(pb.RemoveSnapshotDeviceRequest(vm_id=vm(number)))
    assert mapped() == set()
    lab_run("udevadm", "settle")
    assert loops() == []
    assert list(Path("/dev/ingle").iterdir()) == []


def test_changes_outlive_the_device(disks: Any, uid: int) -> None:
    image(uid)
    cow(uid, 1)
    for text in (b"first", b"second"):
        path = Path(create(disks, 1).path)
        with path.open("r+b") as file:
            assert text == b"first" or file.read(5) == b"first"
            file.seek(0)
            file.write(text)
            os.fsync(file.fileno())
        disks.RemoveSnapshotDevice(pb.RemoveSnapshotDeviceRequest(vm_id=vm(1)))
    assert Path(create(disks, 1).path).read_bytes()[:7] == b"secondi"


def test_a_disk_grows_while_it_is_open_and_never_shrinks(disks: Any, uid: int) -> None:
    image(uid)
    changes = cow(uid, 1)
    path = Path(create(disks, 1).path)
    with path.open("r+b") as file:
        file.write(b"before")
        os.fsync(file.fileno())
        os.truncate(changes, 8 * MIB)
        grown = disks.ResizeSnapshotDevice(pb.ResizeSnapshotDeviceRequest(vm_id=vm(1), size_bytes=6 * MIB)).device
        assert (grown.size_bytes, grown.state, grown.capacity_bytes) == (6 * MIB, pb.SNAPSHOT_STATE_VALID, 8 * MIB)
        assert file.seek(0, os.SEEK_END) == 6 * MIB
        file.seek(5 * MIB)
        file.write(b"behind")
        os.fsync(file.fileno())
    content = path.read_bytes()
    assert (content[:7], content[5 * MIB : 5 * MIB + 7]) == (b"beforei", b"behind\0")
    request = pb.ResizeSnapshotDeviceRequest(vm_id=vm(1), size_bytes=2 * MIB)
    assert refused(disks.ResizeSnapshotDevice, request).reason == "WRONG_STATE"


def test_an_overflow_is_seen(disks: Any, uid: int) -> None:
    image(uid)
    cow(uid, 1, size=128 * 1024)
    path = Path(create(disks, 1).path)
    lab_run("dd", "if=/dev/urandom", f"of={path}", "bs=64k", "count=16", "conv=notrunc,fsync", code=1)
    assert disks.List(pb.ListRequest()).devices[0].state == pb.SNAPSHOT_STATE_OVERFLOWED


@pytest.mark.parametrize("size", [2 * MIB, 2 * MIB + 4096])
def test_a_disk_that_the_server_made_has_room_for_every_block(disks: Any, uid: int, size: int) -> None:
    source = image(uid)
    changes = cow(uid, 1)
    changes.unlink()
    asyncio.run(SnapshotDisk(AbsentDevices()).create(Disk(source, DiskFormat.RAW), changes.parent, size))
    os.chown(changes, uid, uid)
    path = Path(create(disks, 1, size=size).path)
    data = os.urandom(size)
    with path.open("r+b") as file:
        file.write(data)
        os.fsync(file.fileno())
    (device,) = disks.List(pb.ListRequest()).devices
    assert device.state == pb.SNAPSHOT_STATE_VALID
    assert device.used_bytes <= device.capacity_bytes <= device.used_bytes + 3 * 4096
    disks.RemoveSnapshotDevice(pb.RemoveSnapshotDeviceRequest(vm_id=vm(1)))
    assert Path(create(disks, 1, size=size).path).read_bytes() == data


def test_one_that_is_open_is_not_removed_and_stays_listed(disks: Any, uid: int) -> None:
    image(uid)
    cow(uid, 1)
    with Path(create(disks, 1).path).open("rb"):
        error = refused(disks.RemoveSnapshotDevice, pb.RemoveSnapshotDeviceRequest(vm_id=vm(1)))
    assert error.reason == "IN_USE"
    assert [device.state for device in disks.List(pb.ListRequest()).devices] == [pb.SNAPSHOT_STATE_VALID]


@pytest.mark.parametrize("which", ["image", "cow"])
def test_files_of_others_and_links_are_refused(disks: Any, uid: int, which: str) -> None:
    files = {"image": image(uid), "cow": cow(uid, 1)}
    file = files[which]
    os.chown(file, 0, 0)
    request = pb.CreateSnapshotDeviceRequest(vm_id=vm(1), image_id=IMAGE, size_bytes=2 * MIB)
    assert refused(disks.CreateSnapshotDevice, request).reason == "FILE_PERMISSION_DENIED"
    file.rename(file.with_name("real"))
    file.symlink_to("real")
    assert refused(disks.CreateSnapshotDevice, request).reason == "SYMLINK_REFUSED"
    file.unlink()
    os.mkfifo(file)
    os.chown(file, uid, uid)
    assert refused(disks.CreateSnapshotDevice, request).reason == "NOT_A_REGULAR_FILE"
    file.unlink()
    file.hardlink_to(file.with_name("real"))  # which is root's, and could be anything of root's
    assert refused(disks.CreateSnapshotDevice, request).reason == "NOT_A_REGULAR_FILE"
    file.unlink()
    assert refused(disks.CreateSnapshotDevice, request).reason == "FILE_NOT_FOUND"
    file.with_name("real").unlink()
    assert mapped() == set()


def test_a_file_of_changes_that_overrides_the_table_or_can_be_changed_is_refused(disks: Any, uid: int) -> None:
    """Its header says how large the kernel's buffers are: here half a gigabyte."""
    image(uid)
    file = cow(uid, 1)
    request = pb.CreateSnapshotDeviceRequest(vm_id=vm(1), image_id=IMAGE, size_bytes=2 * MIB)
    with file.open("r+b") as held:
        assert refused(disks.CreateSnapshotDevice, request).reason == "IN_USE"
        held.write(struct.pack("<4I", 0x70416E53, 1, 1, 1 << 20))
    assert refused(disks.CreateSnapshotDevice, request).reason == "INVALID_ARGUMENT"
    assert mapped() == set()
    assert file.stat().st_uid == uid
    cow(uid, 1)
    for _ in range(2):  # a new one, and one that the kernel has written to
        create(disks, 1)
        assert file.stat().st_uid == uid
        disks.RemoveSnapshotDevice(pb.RemoveSnapshotDeviceRequest(vm_id=vm(1)))


def test_somebody_elses_device_with_a_name_like_ours_is_left_alone(disks: Any, uid: int) -> None:
    image(uid)
    cow(uid, 1)
    lab_run("dmsetup", "create", f"ingle-{vm(1)}", "--table", "0 8 zero")
    try:
        request = pb.CreateSnapshotDeviceRequest(vm_id=vm(1), image_id=IMAGE, size_bytes=2 * MIB)
        assert refused(disks.CreateSnapshotDevice, request).reason == "IN_USE"
        disks.Reconcile(pb.ReconcileRequest())
        assert mapped() == {f"ingle-{vm(1)}"}
    finally:
        lab_run("dmsetup", "remove", f"ingle-{vm(1)}")


def test_killed_and_started_again_it_has_exactly_what_it_had(disks: Any, uid: int) -> None:
    image(uid)
    for number in (1, 2):
        cow(uid, number)
        create(disks, number)
    lab_run("systemctl", "kill", "--signal=KILL", "lab-ingle-helper-dm.service")
    listed = disks.List(pb.ListRequest()).devices
    assert [(each.vm_id, each.state) for each in listed] == [(vm(n), pb.SNAPSHOT_STATE_VALID) for n in (1, 2)]
    wanted = pb.WantedDevice(vm_id=vm(2), image_id=IMAGE, size_bytes=2 * MIB)
    disks.Reconcile(pb.ReconcileRequest(devices=[wanted]))
    assert mapped() == {f"ingle-{vm(2)}", f"ingle-{vm(2)}-base"}

"""What the doctor says of a whole machine's server where no root and no helper is needed to have it go wrong."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.api_server.adapters.disk import ReflinkDisk
from ingle.api_server.adapters.helper import HelperFindings, Obstacle, ObstacleKind, Usage
from ingle.api_server.adapters.sqlite import vms_by_network
from ingle.api_server.config import Paths
from ingle.api_server.doctor import system
from ingle.api_server.doctor.host import kvm_check
from ingle.api_server.model.caller import ROOT, Caller
from ingle.api_server.model.check import Check
from ingle.api_server.model.vm import VmState
from ingle.version import VERSION
from unit.api_server.vmms import ME, VM, world
from unit.places import PLACES, place_on

FOUND = HelperFindings(VERSION, Usage(0, 256), Usage(0, 1024), Usage(0, 0), (), ("CAP_CHOWN", "CAP_NET_ADMIN"))


def paths(root: Path) -> Paths:
    return Paths.of({"HOME": str(root), "XDG_RUNTIME_DIR": str(root), "XDG_STATE_HOME": str(root)})


async def test_a_network_that_fills_up_is_told_before_and_after(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        database = tmp_path / "ingle.db"
        assert database.exists()
        assert system.addresses_check(vms_by_network(database), ME).detail == "none taken; 253 in a network"
        for number in range(253):
            vm = replace(
                VM,
                id=f"{number:012x}",
                name=f"vm-{number}",
                settings=replace(VM.settings, network="backend", nat=False),
            )
            await at.store.vms.insert(vm, bytes(32))
            if number == 226:
                assert system.addresses_check(vms_by_network(database), ME).status == "pass"
            if number == 227:
                assert system.addresses_check(vms_by_network(database), ME).status == "warn"
        check = system.addresses_check(vms_by_network(database), ME)
        assert (check.status, check.detail) == ("fail", "253 of 253 in network 'backend': none is left")
        assert "--network" in check.remedy


def test_the_fullest_networks_are_named_first() -> None:
    taken = {"default": 7, "backend": 230, **{f"lab-{number}": 1 for number in range(9)}}
    check = system.addresses_check({(ROOT, name): vms for name, vms in taken.items()}, ME)
    named = "230 of 253 in network 'backend', 'default' 7, 'lab-0' 1, 'lab-1' 1, 'lab-2' 1, 6 more networks"
    assert (check.status, check.detail) == ("warn", f"{named}: nearly all are taken")


def test_networks_of_others_are_for_admins_to_know() -> None:
    taken = {(ROOT, "default"): 7, (1000, "default"): 5, (1000, "lab"): 3}
    assert system.addresses_check(taken, Caller(1000)).detail == "5 of 253 in network 'default', 'lab' 3"
    assert system.addresses_check(taken, Caller(1001)).detail == "none taken; 253 in a network"
    everybodys = "7 of 253 in network 'default', '1000/default' 5, '1000/lab' 3"
    assert system.addresses_check(taken, ME).detail == everybodys


def test_a_database_that_is_not_there_has_no_vms(tmp_path: Path) -> None:
    assert vms_by_network(tmp_path / "ingle.db") == {}


@pytest.mark.parametrize(
    ("used", "limit", "status"), [(0, 256, "pass"), (255, 256, "pass"), (256, 256, "warn"), (1, 1, "pass")]
)
def test_networks_that_run_out_are_told_but_for_a_pool_that_is_meant_for_one(
    used: int, limit: int, status: str
) -> None:
    assert system.networks_check(used, limit).status == status


def test_a_helper_of_another_version_is_to_be_restarted() -> None:
    check = system.version_check("network helper", FOUND, Path("/run/a"))
    assert (check.status, check.detail) == (
        "pass",
        f"version {VERSION} answers on /run/a, with CAP_CHOWN, CAP_NET_ADMIN",
    )
    check = system.version_check("network helper", replace(FOUND, version="0.0.1"), Path("/run/a"))
    assert (check.status, check.remedy) == ("warn", "sudo ingle system restart")
    assert "version 0.0.1 answers" in check.detail


@pytest.mark.parametrize("kind", PLACES)
async def test_no_helper_for_disks_is_fine_where_the_file_system_shares_blocks(tmp_path: Path, kind: str) -> None:
    with place_on(kind, tmp_path) as place:
        at = paths(place)
        for directory in (at.images, at.vms):
            directory.mkdir(parents=True)
        absent, stopped = tmp_path / "absent" / "helper.sock", tmp_path / "helper.sock"
        if await ReflinkDisk().usable(at.images, at.vms) == "":
            (check,) = await system.disk_checks(absent, at)
            assert (check.status, "none is needed" in check.detail) == ("pass", True)
        else:
            check = (await system.disk_checks(absent, at))[0]
            assert (check.name, check.status, check.remedy) == ("disk helper", "warn", "sudo ingle system install")
            check = (await system.disk_checks(stopped, at))[0]
            assert "sudo systemctl restart ingle-helper-dm;" in check.remedy
        assert list(at.images.iterdir()) == list(at.vms.iterdir()) == [], "nothing is left of looking"


def test_a_kernel_without_device_mapper_is_told(tmp_path: Path) -> None:
    assert system.device_mapper_check(tmp_path).status == "pass"
    check = system.device_mapper_check(tmp_path / "absent")
    assert (check.status, "modprobe" in check.remedy) == ("warn", True)


def test_a_tun_device_that_can_not_be_opened_keeps_vms_from_networks(tmp_path: Path) -> None:
    device = tmp_path / "tun"
    assert system.tun_check(device).status == "fail"
    device.touch()
    assert system.tun_check(device).status == "pass"


@pytest.mark.parametrize(
    ("in_system", "remedy"), [(True, "sudo systemctl restart ingle"), (False, "modprobe kvm_intel")]
)
def test_a_kvm_that_is_none_is_told(tmp_path: Path, in_system: bool, remedy: str) -> None:
    check = kvm_check(tmp_path / "kvm", tmp_path, system=in_system)
    assert (check.status, remedy in check.remedy) == ("warn", True)
    (tmp_path / "kvm").touch()
    assert "Inappropriate ioctl" in kvm_check(tmp_path / "kvm", tmp_path, system=in_system).detail, (
        "opening is not enough"
    )


def test_a_kvm_whose_guests_do_not_boot_is_told_as_emulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kvm").touch()
    monkeypatch.setattr("fcntl.ioctl", lambda *_: os.open("/dev/null", os.O_RDONLY))
    host_boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def found(problem: str, boot: str = host_boot) -> Check:
        (tmp_path / "kvm-ab.json").write_text(json.dumps({"host_boot": boot, "problem": problem}))
        return kvm_check(tmp_path / "kvm", tmp_path, system=False)

    hangs = found("a probe guest did not boot in 30 s")
    assert hangs.status == "warn"
    assert "emulated (tcg)" in hangs.detail
    assert "did not boot in 30 s" in hangs.detail
    assert hangs.remedy
    assert found("").status == "pass"
    assert "first start finds out" in found("hangs", boot="another").detail


@pytest.mark.parametrize("kind", ObstacleKind)
@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_each_obstacle_has_a_remedy_for_its_protocol(kind: ObstacleKind, family: str) -> None:
    (check,) = system.firewall_checks((Obstacle(kind, family, "filter", "FORWARD"),))
    assert (check.status, check.remedy.startswith("sudo ")) == ("warn", True)
    assert "tables" not in check.remedy or ("ip6tables" in check.remedy) == (family == "ip6")

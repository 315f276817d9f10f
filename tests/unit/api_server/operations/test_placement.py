"""Engine, acceleration, disk and network are chosen together, and why they can't be is told at once."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.adapters.disk import CopyDisk, Qcow2Disk
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import HostProblem, InvalidArgument, Reason
from ingle.api_server.model.spec import Defaults, VmSpec
from ingle.api_server.model.vm import Acceleration, Kernel, Vm
from ingle.api_server.operations.placement import Place, Placement
from ingle.api_server.ports.disk import DiskBackend, DiskFormat
from ingle.api_server.ports.engine import Engine, EngineInfo, NetworkKind
from unit.api_server.vmms import KERNEL, ME, VM, Shelf, Wires

KVM, TCG = Acceleration.KVM, Acceleration.TCG


@dataclass
class Declared:
    """An engine as far as its choice goes. Of a kernel it tries, it says the same each time."""

    info: EngineInfo
    missing: HostProblem | None = None
    kvm_problem: str = ""
    probes: int = 0

    async def problem(self) -> HostProblem | None:
        return self.missing

    async def acceleration_problem(self, acceleration: Acceleration, kernel: Kernel) -> str:
        self.probes += 1
        return self.kvm_problem if acceleration is KVM else ""


def fast() -> Declared:
    """One that takes much for granted."""
    info = EngineInfo("fast", frozenset({KVM}), frozenset({DiskFormat.RAW}), frozenset({NetworkKind.SHARED}))
    return Declared(info)


def any_host() -> Declared:
    """One that runs everywhere."""
    return Declared(EngineInfo("any", frozenset({KVM, TCG}), frozenset(DiskFormat), frozenset(NetworkKind)))


class Host:
    """Two engines, disks and a network, of which a test takes what it wants away."""

    def __init__(self, tmp_path: Path) -> None:
        self.fast, self.any, self.network, self.shelf = fast(), any_host(), Wires(), Shelf()
        disks: tuple[DiskBackend, ...] = (Qcow2Disk(Tools(tmp_path)), self.shelf, CopyDisk())
        self._disks = {disk.name: disk for disk in disks}
        self._path = tmp_path

    @property
    def placement(self) -> Placement:
        engines = cast("dict[str, Engine]", {each.info.name: each for each in (self.fast, self.any)})
        return Placement(engines, self._disks, cast("Any", self.network), self._path, self._path)

    async def place(self, **wish: Any) -> Place:
        placement = self.placement
        return await placement.settle(await placement.choose(VmSpec(**wish).with_defaults(Defaults())), KERNEL)


def of(**settings: Any) -> Vm:
    """A VM with these settings."""
    return replace(VM, settings=replace(VM.settings, **settings))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


async def test_an_engine_that_gives_no_vm_so_many_vcpus_is_not_taken_and_says_how_many_it_does(host: Host) -> None:
    host.fast.info = replace(host.fast.info, most_vcpus=2)
    assert (await host.place(vcpus=2)).engine == "fast"
    assert (await host.place(vcpus=3)).engine == "any"
    with pytest.raises(HostProblem, match="fast: it gives a VM 2 vcpus at most") as caught:
        await host.place(vcpus=3, engine="fast")
    assert caught.value.remedy == "use --vcpu 2"


async def test_who_wants_a_network_of_its_own_of_an_engine_that_has_none_is_told_to_do_without(host: Host) -> None:
    with pytest.raises(HostProblem, match="fast: no network 'user': it has none of a VM's own") as caught:
        await host.place(engine="fast", network="user")
    assert caught.value.remedy == "leave --network user out"


async def test_the_better_engine_is_taken_with_what_it_can_open_and_not_with_what_another_can(host: Host) -> None:
    assert await host.place() == Place("fast", KVM, "scripted", "default")


async def test_what_is_wished_decides_the_engine(host: Host) -> None:
    assert await host.place(disk_backend="qcow2") == Place("any", KVM, "qcow2", "default")
    assert await host.place(network="user") == Place("any", KVM, "qcow2", "user")
    assert await host.place(network="backend") == Place("fast", KVM, "scripted", "backend")
    assert await host.place(acceleration=TCG) == Place("any", TCG, "qcow2", "default")
    assert await host.place(engine="any") == Place("any", KVM, "qcow2", "default")
    assert await host.place(engine="auto") == await host.place()


async def test_a_limit_of_the_network_takes_one_that_vms_share(host: Host) -> None:
    host.network.failure = HostProblem(Reason.DEPENDENCY_MISSING, "no helper")
    assert (await host.place(disk_iops=100, engine="any")).network == "user"
    told = "no network 'default': no helper; no network 'user': its VMM connects it, and nothing limits that"
    with pytest.raises(HostProblem, match=told) as caught:
        await host.place(net_bytes_per_second=1 << 20, engine="any")
    assert caught.value.remedy == "sudo ingle system install"


async def test_what_the_host_lacks_decides_the_engine(host: Host) -> None:
    host.shelf.failure = HostProblem(Reason.DEPENDENCY_MISSING, "no shelf")
    assert await host.place() == Place("fast", KVM, "copy", "default")
    host.network.failure = HostProblem(Reason.DEPENDENCY_MISSING, "no helper")
    assert await host.place() == Place("any", KVM, "qcow2", "user")


async def test_an_engine_whose_kvm_does_not_run_the_kernel_gives_way_to_the_next(host: Host) -> None:
    host.fast.kvm_problem = host.any.kvm_problem = "it hangs"
    assert await host.place() == Place("any", TCG, "qcow2", "default")


async def test_no_guest_is_booted_to_choose_where_there_is_nothing_to_choose(host: Host) -> None:
    host.fast.missing = HostProblem(Reason.DEPENDENCY_MISSING, "fast is not installed", "apt install fast")
    assert (await host.place()).engine == "any"
    assert host.any.probes == 0


async def test_a_refusal_names_each_engine_with_all_that_is_in_its_way(host: Host) -> None:
    host.fast.missing = HostProblem(Reason.DEPENDENCY_MISSING, "fast is not installed", "apt install fast")
    host.network.failure = HostProblem(Reason.DEPENDENCY_MISSING, "no helper")
    with pytest.raises(HostProblem) as refused:
        await host.place(disk_backend="qcow2", network="backend")
    assert refused.value.message == (
        "no engine can run this VM here: fast: fast is not installed, and disk backend qcow2: it takes no qcow2, "
        "and no network 'backend': no helper; any: no network 'backend': no helper"
    )
    assert refused.value.remedy == "sudo ingle system install"  # what takes least
    assert refused.value.reason is Reason.DEPENDENCY_MISSING


async def test_a_refusal_found_out_by_booting_tells_of_those_that_were_out_before(host: Host) -> None:
    host.fast.missing = HostProblem(Reason.DEPENDENCY_MISSING, "fast is not installed", "apt install fast")
    host.any.info = replace(host.any.info, accelerations=frozenset({KVM}))
    other = fast()
    other.info = replace(other.info, name="other")
    other.kvm_problem = host.any.kvm_problem = "it hangs"
    placement = Placement(
        cast("dict[str, Engine]", {each.info.name: each for each in (host.fast, host.any, other)}),
        {host.shelf.name: host.shelf},
        cast("Any", host.network),
        Path(),
        Path(),
    )
    with pytest.raises(HostProblem) as refused:
        await placement.settle(await placement.choose(VmSpec().with_defaults(Defaults())), KERNEL)
    hangs = "kvm does not work here: it hangs"
    assert refused.value.message == (
        f"no engine can run this VM here: any: {hangs}; other: {hangs}; fast: fast is not installed"
    )
    assert refused.value.remedy == "apt install fast"  # nothing is known that would help the others


async def test_an_engine_that_nobody_knows_is_refused_with_those_there_are(host: Host) -> None:
    with pytest.raises(InvalidArgument, match="engine 'floppy': one of auto, fast, any is allowed"):
        await host.place(engine="floppy")


async def test_how_a_guest_is_accelerated_is_asked_at_each_start_of_its_own_engine(host: Host) -> None:
    of_any, of_fast = (of(engine=name, acceleration=Acceleration.AUTO) for name in ("any", "fast"))
    assert await host.placement.acceleration(of_any, KERNEL) is KVM
    host.fast.kvm_problem = host.any.kvm_problem = "it hangs"
    assert await host.placement.acceleration(of_any, KERNEL) is TCG
    with pytest.raises(HostProblem, match="fast: kvm does not work here: it hangs") as refused:
        await host.placement.acceleration(of_fast, KERNEL)
    assert refused.value.remedy == "use --engine auto"
    with pytest.raises(HostProblem, match="any: kvm does not work here: it hangs") as refused:
        await host.placement.acceleration(of(engine="any", acceleration=KVM), KERNEL)
    assert refused.value.remedy == "use --accel tcg"
    with pytest.raises(HostProblem, match="VM 'demo' is of engine lost; this server has fast, any"):
        await host.placement.acceleration(of(engine="lost"), KERNEL)


def test_the_doctor_names_vms_whose_engine_is_not_there(host: Host) -> None:
    assert host.placement.check([of(engine="any")], ME).status == "pass"
    check = host.placement.check([of(engine="lost")], ME)
    assert (check.status, check.detail) == ("warn", "demo: this server has no engine lost")
    assert check.remedy == "ingle vm delete --force demo"

"""Two users of one server, and a third whom it does not serve: what is one's does not exist for the other.

All methods of all services are walked, from their descriptors: one that is not in REQUESTS fails, so that whoever adds
one thinks of whose it is.
"""

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from contract.requests_of_all_methods import FOR_ALL, LISTS, METHODS, OF_A_SNAPSHOT, OF_A_VM, OF_AN_OPERATION
from contract.shared_server import ADMINS, GROUP, as_user, shared_server
from harness import Server, refusal, refused, server_directory
from ingle.api_server.application import SERVICES
from ingle.api_server.model.quota import NAMES
from ingle.testing import made_up
from ingle.v1 import event_pb2 as event
from ingle.v1 import image_pb2 as image
from ingle.v1 import kernel_pb2 as kernel
from ingle.v1 import kernel_pb2_grpc, snapshot_pb2_grpc, vm_pb2_grpc
from ingle.v1 import operation_pb2 as operation
from ingle.v1 import snapshot_pb2 as snapshot
from ingle.v1 import system_pb2 as system
from ingle.v1 import vm_pb2 as vm
from uploading import image_upload, kernel_upload

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users")

ALICE, BOB, CAROL, ADMIN = 12_345_001, pwd.getpwnam("nobody").pw_uid, 12_345_002, 12_345_003
OP = "op-00000000dead"


@dataclass(frozen=True)
class Heard:
    """All that a caller hears, without what is another's in every call."""

    code: str
    said: str
    details: bytes
    messages: tuple[bytes, ...]


def call(channel: grpc.Channel, name: str, requests: Sequence[Message]) -> Heard:
    """Make it, and hear all of it; the name that was said does not count, nor does the op_id."""
    method = METHODS[name]
    kind = ("stream" if method.client_streaming else "unary") + ("_stream" if method.server_streaming else "_unary")
    make = getattr(channel, kind)(
        f"/{method.containing_service.full_name}/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    heard: list[bytes] = []
    try:
        answer = make(iter(requests) if method.client_streaming else requests[0], timeout=60)
        heard.extend(message.SerializeToString() for message in (answer if method.server_streaming else [answer]))
    except grpc.RpcError as error:
        told = refusal(error)
        details: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
        whole = bytes(details["grpc-status-details-bin"]).replace(told.op_id.encode(), b"OP")
        return Heard(told.code.name, told.message, whole, tuple(heard))
    return Heard("OK", "", b"", tuple(heard))


def without(heard: Heard, said: str) -> Heard:
    """The same of any other that could have been said, as long."""
    of_any = "?" * len(said)
    details = heard.details.replace(said.encode(), of_any.encode())
    return Heard(heard.code, heard.said.replace(said, of_any), details, heard.messages)


@dataclass(frozen=True)
class Place:
    """A server, what is Alice's on it, and its callers."""

    server: Server
    web: vm.Vm
    before: snapshot.Snapshot
    op_id: str
    alice: grpc.Channel
    bob: grpc.Channel
    admin: grpc.Channel


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with server_directory() as root:
        server = shared_server(root, "red").start()
        try:
            with (
                tempfile.TemporaryDirectory() as tree,
                as_user(server, ALICE, GROUP) as alice,
                as_user(server, BOB, GROUP) as bob,
                as_user(server, ADMIN, GROUP, ADMINS) as admin,
            ):
                (Path(tree) / "file").write_text("all that an image needs")
                server.images.RegisterImage(image_upload("tiny", Path(tree)))
                server.kernels.ImportKernel(kernel_upload("made-up", made_up.VMLINUX))
                web = create(alice, "web")
                (op_id,) = operations_of(alice)
                before = snapshot_of(alice, "web", "before")
                yield Place(server, web, before, op_id, alice, bob, admin)
        finally:
            for found in server.vms.ListVms(vm.ListVmsRequest(all_users=True)).vms:
                server.vms.DeleteVm(vm.DeleteVmRequest(vm=found.id, force=True))
            for left in server.snapshots.ListSnapshots(snapshot.ListSnapshotsRequest(all_users=True)).snapshots:
                server.snapshots.DeleteSnapshot(snapshot.DeleteSnapshotRequest(snapshot=left.id))
            assert server.stop() == 0, server.said()


def create(channel: grpc.Channel, name: str, **more: Any) -> vm.Vm:
    spec = vm.VmSpec(name=name, image="tiny", kernel="made-up", engine="red")
    return vm_pb2_grpc.VmServiceStub(channel).CreateVm(vm.CreateVmRequest(spec=spec, **more)).vm


def snapshot_of(channel: grpc.Channel, name: str, called: str) -> snapshot.Snapshot:
    request = snapshot.CreateSnapshotRequest(vm=name, name=called, disk_only=True)
    return snapshot_pb2_grpc.SnapshotServiceStub(channel).CreateSnapshot(request).snapshot


def operations_of(channel: grpc.Channel) -> list[str]:
    (told,) = call(channel, "ListOperations", [operation.ListOperationsRequest()]).messages
    return [each.id for each in operation.ListOperationsResponse.FromString(told).operations]


def web_now(place: Place) -> vm.Vm:
    (told,) = call(place.alice, "GetVm", [vm.GetVmRequest(vm=place.web.id)]).messages
    return vm.GetVmResponse.FromString(told).vm


def test_every_method_of_every_service_is_walked() -> None:
    assert {method.containing_service.full_name for method in METHODS.values()} == set(SERVICES)
    assert METHODS.keys() == {
        *OF_A_VM,
        *OF_A_SNAPSHOT,
        *OF_AN_OPERATION,
        *LISTS,
        *FOR_ALL,
        "WatchEvents",
        "GetDiskUsage",
        "ListWarmMemories",
    }


def test_no_method_for_all_takes_a_vm_or_an_operation() -> None:
    for name in FOR_ALL:
        assert not {"vm", "snapshot", "operation_id", "all_users"} & {*METHODS[name].input_type.fields_by_name}, name


@pytest.mark.parametrize("name", sorted(OF_A_VM))
def test_a_strangers_vm_is_heard_of_as_one_that_never_was(place: Place, name: str) -> None:
    web_id = place.web.id
    never = {"web": "wen", web_id: f"{web_id[:-1]}{(int(web_id[-1], 16) + 1) % 16:x}", web_id[:6]: "0" * 6}
    for said, other in (*never.items(), (f"{ALICE}/web", f"{CAROL}/web"), (f"{ALICE}/web", f"{ALICE}/wen")):
        heard = call(place.bob, name, OF_A_VM[name](said))
        assert heard.code == "NOT_FOUND", heard
        assert without(heard, said) == without(call(place.bob, name, OF_A_VM[name](other)), other)
    assert web_now(place).boot_id == place.web.boot_id, "it runs, and nothing has happened to it"


@pytest.mark.parametrize("name", sorted(OF_A_SNAPSHOT))
def test_a_strangers_snapshot_is_heard_of_as_one_that_never_was(place: Place, name: str) -> None:
    before_id = place.before.id
    never = {"before": "behind", before_id: f"{before_id[:-1]}{(int(before_id[-1], 16) + 1) % 16:x}"}
    for said, other in (*never.items(), (f"{ALICE}/before", f"{CAROL}/before")):
        heard = call(place.bob, name, OF_A_SNAPSHOT[name](said))
        assert heard.code == "NOT_FOUND", heard
        assert without(heard, said) == without(call(place.bob, name, OF_A_SNAPSHOT[name](other)), other)


CHANGE_IT = {"DeleteVm", "KillVm", "StopVm", "RestartVm", "UpdateVm"}
MAKE_MORE = {"ForkVm", "BeginForkVm", "RestoreVm", "CreateSnapshot", "BeginCreateSnapshot"}


@pytest.mark.parametrize("name", sorted(OF_A_VM.keys() - CHANGE_IT - MAKE_MORE))
def test_its_owner_is_heard(place: Place, name: str) -> None:
    """Or the test above would tell nothing. What would end the VM is left to others."""
    requests = OF_A_VM[name]("web")
    for request in requests:
        if "start" in request.DESCRIPTOR.fields_by_name and hasattr(request.start, "delete_vm"):  # type: ignore[attr-defined]
            request.start.delete_vm = False  # type: ignore[attr-defined]
    heard = call(place.alice, name, requests)
    assert "VM_NOT_FOUND" not in heard.details.decode(errors="replace")


@pytest.mark.parametrize("name", sorted(OF_AN_OPERATION))
def test_a_strangers_operation_is_heard_of_as_one_that_never_was(place: Place, name: str) -> None:
    heard = call(place.bob, name, OF_AN_OPERATION[name](place.op_id))
    assert heard.code == "NOT_FOUND"
    assert without(heard, place.op_id) == without(call(place.bob, name, OF_AN_OPERATION[name](OP)), OP)
    assert call(place.alice, name, OF_AN_OPERATION[name](place.op_id)).code == "OK"


@pytest.mark.parametrize("name", sorted(LISTS))
def test_lists_tell_ones_own_and_everybodys_to_admins(place: Place, name: str) -> None:
    (own,) = call(place.bob, name, [LISTS[name]()]).messages
    assert own == b""
    assert call(place.bob, name, [LISTS[name](all_users=True)]).code == "PERMISSION_DENIED"
    (everybodys,) = call(place.admin, name, [LISTS[name](all_users=True)]).messages
    (hers,) = call(place.alice, name, [LISTS[name]()]).messages
    known = (place.before if name == "ListSnapshots" else place.web).id.encode()
    assert (known in everybodys, known in hers) == (True, True)
    assert call(place.admin, name, [LISTS[name]()]).messages == (b"",)


def test_events_of_strangers_are_not_told(place: Place) -> None:
    request = event.WatchEventsRequest(after=0, no_follow=True)
    of_web, by_name = place.web.id.encode(), event.WatchEventsRequest(after=0, no_follow=True, resource="web")
    assert any(of_web in told for told in call(place.alice, "WatchEvents", [request]).messages)
    for asked in (request, by_name):
        heard = call(place.bob, "WatchEvents", [asked])
        assert heard.code == "OK"
        assert not any(of_web in told or b"red" in told for told in heard.messages)
    request.all_users = True
    assert call(place.bob, "WatchEvents", [request]).code == "PERMISSION_DENIED"
    assert any(of_web in told for told in call(place.admin, "WatchEvents", [request]).messages)


def test_what_somebody_has_is_for_them_and_admins_to_know(place: Place) -> None:
    def quota(channel: grpc.Channel, owner: int) -> Heard:
        return call(channel, "GetQuota", [system.GetQuotaRequest(owner=owner)])

    for channel, owner, vms in ((place.alice, ALICE, 1), (place.admin, ALICE, 1), (place.bob, BOB, 0)):
        told = system.GetQuotaResponse.FromString(quota(channel, owner).messages[0])
        assert {item.name: item.used for item in told.items}["vms"] == vms
    assert quota(place.bob, ALICE).code == "PERMISSION_DENIED"
    assert quota(place.bob, ALICE) == quota(place.bob, CAROL)


def test_disks_of_strangers_are_not_told(place: Place) -> None:
    def usage(channel: grpc.Channel, *, all_users: bool) -> system.GetDiskUsageResponse:
        heard = call(channel, "GetDiskUsage", [system.GetDiskUsageRequest(each_vm=True, all_users=all_users)])
        assert heard.code == "OK", heard
        return system.GetDiskUsageResponse.FromString(heard.messages[0])

    hers, his = usage(place.alice, all_users=False), usage(place.bob, all_users=False)
    assert (len(hers.vms), len(his.vms)) == (1, 0)
    taken = {use.kind: use.count for use in his.uses}
    assert taken[system.DISK_USE_KIND_VM_DISKS] == taken[system.DISK_USE_KIND_VM_LOGS] == 0
    others = [use.count for told in (hers, his) for use in told.uses if use.kind == system.DISK_USE_KIND_OTHER]
    assert others[0] == others[-1], "what is a stranger's is not told as nobody's either"
    assert place.web.id in str(usage(place.admin, all_users=True).vms)
    refused = call(place.bob, "GetDiskUsage", [system.GetDiskUsageRequest(all_users=True)])
    assert refused.code == "PERMISSION_DENIED"


def test_names_are_each_owners_own(place: Place) -> None:
    his = create(place.bob, "web", no_start=True)
    try:
        assert (his.owner, place.web.owner) == (BOB, ALICE)
        assert web_now(place).name == "web"
        for said, meant in ((f"{ALICE}/web", place.web.id), (f"{BOB}/web", his.id), (his.id, his.id)):
            (told,) = call(place.admin, "GetVm", [vm.GetVmRequest(vm=said)]).messages
            assert vm.GetVmResponse.FromString(told).vm.id == meant
    finally:
        call(place.bob, "DeleteVm", [vm.DeleteVmRequest(vm="web")])


def test_a_vm_is_not_put_back_to_a_strangers_snapshot(place: Place) -> None:
    his = create(place.bob, "own", no_start=True)
    try:
        heard, other = (
            call(place.bob, "RestoreVm", [vm.RestoreVmRequest(vm="own", snapshot=said)])
            for said in (place.before.id, "0" * 12)
        )
        assert heard.code == "NOT_FOUND"
        assert without(heard, place.before.id) == without(other, "0" * 12)
    finally:
        call(place.bob, "DeleteVm", [vm.DeleteVmRequest(vm=his.id)])


def test_the_command_line_says_whose_it_is(place: Place) -> None:
    his = create(place.bob, "app", no_start=True)

    def ingle(*words: str) -> str:
        argv = [sys.executable, "-m", "ingle.cli", *words]
        return subprocess.run(argv, env=place.server.env, capture_output=True, text=True, check=True).stdout

    try:
        assert ingle("vm", "list", "-q") == ""
        assert ingle("vm", "list", "-q", "--all-users") == f"{ALICE}/web\nnobody/app\n"
        assert [line.split()[0] for line in ingle("ps", "--all-users").splitlines()] == ["OWNER", str(ALICE), "nobody"]
        assert ingle("vm", "show", "--format", "{{.id}}", "nobody/app") == f"{his.id}\n"
        assert ["owner", "nobody"] in [line.split() for line in ingle("vm", "show", "nobody/app").splitlines()]
        assert ingle("vm", "rename", "nobody/app", "app-2").strip()
        assert {line.split()[0] for line in ingle("operation", "list", "--all-users").splitlines()} == {
            *("OWNER", str(ALICE), "nobody", "root")
        }
        assert "vms     1     none" in ingle("quota", "nobody")
        assert ingle("quota", "--json", str(ALICE)).count('"used"') == len(NAMES)
    finally:
        call(place.bob, "DeleteVm", [vm.DeleteVmRequest(vm=his.id)])


def test_who_has_its_quota_makes_no_more_before_anything_is_done(place: Place) -> None:
    uid = CAROL + 1000
    configuration = place.server.root / "config" / "ingle" / "config.toml"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text(f"[quotas.users.{uid}]\nvms = 2\nvcpus = 0\n")
    with as_user(place.server, uid, GROUP) as channel:
        create(channel, "one", no_start=True)
        told = system.GetQuotaResponse.FromString(call(channel, "GetQuota", [system.GetQuotaRequest()]).messages[0])
        assert {item.name: (item.used, item.limit) for item in told.items if item.HasField("limit")} == {
            "vms": (1, 2),
            "vcpus": (0, 0),
        }
        before = operations_of(channel)
        wish = vm.VmSpec(name="two", image="tiny", kernel="made-up", engine="red", vcpus=1)
        refused = call(channel, "CreateVm", [vm.CreateVmRequest(spec=wish)])
        assert refused.code == "RESOURCE_EXHAUSTED"
        assert refused.said == "quota of vcpus of VMs that are up: 0 allowed, 0 used, 1 more wanted"
        assert operations_of(channel) == before, "nothing was begun"
        assert call(channel, "StartVm", [vm.StartVmRequest(vm="one")]).said == refused.said
        configuration.write_text("")
        assert call(channel, "StartVm", [vm.StartVmRequest(vm="one")]).code == "OK", "the file is read anew"
        assert call(channel, "DeleteVm", [vm.DeleteVmRequest(vm="one", force=True)]).code == "OK"


def test_what_is_shared_is_not_for_everybody_to_take_away(place: Place) -> None:
    for name, request in (
        ("DeleteImage", image.DeleteImageRequest(image="tiny")),
        ("DeleteKernel", kernel.DeleteKernelRequest(kernel="made-up")),
    ):
        heard = call(place.bob, name, [request])
        assert heard.code == "PERMISSION_DENIED", heard
        assert "web" not in heard.said
    for name in ("tiny", "debian:bookworm"):
        heard = call(place.bob, "RegisterImage", list(image_upload(name, b"x")))
        assert (heard.code, name in heard.said) == ("PERMISSION_DENIED", True)


def test_what_all_get_who_say_nothing_is_for_admins_to_give(place: Place) -> None:
    configuration = place.server.root / "config" / "ingle" / "config.toml"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text('image = "our:base"\nkernel = "our-kernel"\n')
    try:
        for name, request in (
            ("RegisterImage", list(image_upload("our:base", b"x"))),
            ("ImportKernel", list(kernel_upload("our-kernel", b"x"))),
        ):
            heard = call(place.bob, name, request)
            assert (heard.code, "default" in heard.said) == ("PERMISSION_DENIED", True), heard
            assert call(place.admin, name, request).code == "INVALID_ARGUMENT", "it is none, but may have the name"
    finally:
        configuration.write_text("")


def test_the_doctor_tells_nobody_of_strangers(place: Place) -> None:
    def examined(channel: grpc.Channel) -> dict[str, str]:
        (told,) = call(channel, "Examine", [system.ExamineRequest()]).messages
        return {check.name: check.detail for check in system.ExamineResponse.FromString(told).checks}

    before = examined(place.bob)
    assert before["vms"] == "0 of 0 run"
    more = create(place.alice, "more", no_start=True)
    try:
        hers = examined(place.alice)
        assert hers["vms"] == "1 of 2 run"
        told = {name: detail for name, detail in examined(place.bob).items() if detail != before[name]}
        assert not {name for name in told if "free" not in told[name]}, "but for the room on disks, nothing is other"
    finally:
        call(place.alice, "DeleteVm", [vm.DeleteVmRequest(vm=more.id)])


def test_who_is_in_neither_group_is_not_served_at_all(place: Place) -> None:
    for groups in ((), (ADMINS,)):
        with (
            as_user(place.server, CAROL + 10 * len(groups), *groups) as channel,
            pytest.raises(grpc.RpcError) as refused,
        ):
            vm_pb2_grpc.VmServiceStub(channel).ListVms(vm.ListVmsRequest(), timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_what_two_users_have_made_is_theirs_together_and_goes_with_the_last(place: Place) -> None:
    vmlinux = made_up.elf(text=b"\0Linux version 6.1.0-both (made@up) #1 SMP\n\0")
    hers, his = (kernel_pb2_grpc.KernelServiceStub(channel) for channel in (place.alice, place.bob))
    made = hers.ImportKernel(kernel_upload("hers", vmlinux)).kernel
    both = his.ImportKernel(kernel_upload("his", vmlinux)).kernel
    assert (both.id, list(both.names), list(both.owners)) == (made.id, ["hers", "his"], sorted((ALICE, BOB)))
    files = place.server.state / "kernels" / made.id
    assert list(hers.PruneKernels(kernel.PruneKernelsRequest(all=True, dry_run=True)).kernels) == []
    assert hers.DeleteKernel(kernel.DeleteKernelRequest(kernel="hers")).stays
    left = his.GetKernel(kernel.GetKernelRequest(kernel="his")).kernel
    assert (list(left.names), left.owner, list(left.owners)) == (["his"], BOB, [BOB])
    assert refused(hers.DeleteKernel, kernel.DeleteKernelRequest(kernel=made.id)).reason == "NOT_OWNER"
    assert files.is_dir()
    assert not his.DeleteKernel(kernel.DeleteKernelRequest(kernel="his")).stays
    assert not files.exists()

"""Memories that VMs begin with, with several users: each has his own."""

import os

import pytest

from contract.test_strangers import ALICE, BOB, Place, call, place
from ingle.v1 import image_pb2 as image
from ingle.v1 import image_pb2_grpc, vm_pb2_grpc
from ingle.v1 import system_pb2 as system
from ingle.v1 import vm_pb2 as vm

__all__ = ["place"]

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users")


def test_memories_that_vms_begin_with_are_for_their_owners_vms_alone(place: Place) -> None:
    wish = vm.VmSpec(image="tiny", kernel="made-up", disk_bytes=2**27)
    made = image_pb2_grpc.ImageServiceStub(place.alice).WarmImage(image.WarmImageRequest(spec=wish)).memory
    assert made.owner == ALICE
    asked, of_all = image.ListWarmMemoriesRequest(), image.ListWarmMemoriesRequest(all_users=True)
    assert call(place.bob, "ListWarmMemories", [asked]).messages == (b"",)
    assert call(place.bob, "ListWarmMemories", [of_all]).code == "PERMISSION_DENIED"
    for told in (call(place.alice, "ListWarmMemories", [asked]), call(place.admin, "ListWarmMemories", [of_all])):
        assert made.key.encode() in told.messages[0]
    for channel, told_of in ((place.alice, 1), (place.bob, 0)):
        asked_of = system.GetDiskUsageRequest()
        uses = system.GetDiskUsageResponse.FromString(call(channel, "GetDiskUsage", [asked_of]).messages[0]).uses
        (use,) = (use for use in uses if use.kind == system.DISK_USE_KIND_WARM_MEMORY)
        assert (use.count, use.allocated_bytes > 0, use.apparent_bytes > 0) == (told_of, told_of > 0, told_of > 0)
    prune = image.PruneWarmMemoriesRequest(all=True)
    assert call(place.bob, "PruneWarmMemories", [prune]).messages == (b"",)
    wish.boot_mode = vm.BOOT_MODE_WARM
    for channel, uid in ((place.alice, ALICE), (place.bob, BOB)):
        stub = vm_pb2_grpc.VmServiceStub(channel)
        began = stub.CreateVm(vm.CreateVmRequest(spec=wish)).vm
        assert (began.boot_mode, began.owner) == (vm.BOOT_MODE_WARM, uid)
        stub.DeleteVm(vm.DeleteVmRequest(vm=began.id, force=True))
    keys = {each.key for each in place.server.images.ListWarmMemories(of_all).memories}
    assert len(keys) == 2, "Bob's is another one, of a guest of his own"
    place.server.images.PruneWarmMemories(prune)

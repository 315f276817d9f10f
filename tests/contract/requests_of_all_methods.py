"""What is asked about a VM or an operation, for each method of all services, and which methods are for all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from ingle.v1 import event_pb2 as event
from ingle.v1 import guest_pb2 as guest
from ingle.v1 import image_pb2 as image
from ingle.v1 import kernel_pb2 as kernel
from ingle.v1 import operation_pb2 as operation
from ingle.v1 import snapshot_pb2 as snapshot
from ingle.v1 import system_pb2 as system
from ingle.v1 import vm_pb2 as vm
from ingle.v1.upload_pb2 import UploadEnd

METHODS = {
    method.name: method
    for file in (vm, guest, snapshot, event, image, kernel, operation, system)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}

Ask = Callable[[str], Sequence[Message]]
"""The messages of a call about the VM, or the operation, that is said so."""


def _one(make: Callable[..., Message], field: str = "vm", **more: Any) -> Ask:
    return lambda said: [make(**{field: said}, **more)]


def _update(said: str) -> Sequence[Message]:
    request = vm.UpdateVmRequest(vm=said, spec=vm.VmSpec(name="mine-now"))
    request.update_mask.paths.append("name")
    return [request]


OF_A_VM: Mapping[str, Ask] = {
    "GetVm": _one(vm.GetVmRequest),
    "UpdateVm": _update,
    "StartVm": _one(vm.StartVmRequest),
    "StopVm": _one(vm.StopVmRequest),
    "RestartVm": _one(vm.RestartVmRequest),
    "KillVm": _one(vm.KillVmRequest),
    "PauseVm": _one(vm.PauseVmRequest),
    "ResumeVm": _one(vm.ResumeVmRequest),
    "HibernateVm": _one(vm.HibernateVmRequest),
    "WakeVm": _one(vm.WakeVmRequest),
    "DeleteVm": _one(vm.DeleteVmRequest, force=True),
    "ForkVm": _one(vm.ForkVmRequest),
    "BeginForkVm": _one(vm.BeginForkVmRequest),
    "RestoreVm": _one(vm.RestoreVmRequest, snapshot="before"),
    "CreateSnapshot": _one(snapshot.CreateSnapshotRequest),
    "BeginCreateSnapshot": _one(snapshot.BeginCreateSnapshotRequest),
    "GetVmHealth": _one(vm.GetVmHealthRequest),
    "PingVm": _one(vm.PingVmRequest),
    "GetVmStats": _one(vm.GetVmStatsRequest),
    "StreamVmLogs": _one(vm.StreamVmLogsRequest),
    "Exec": lambda said: [guest.ExecRequest(start=guest.ExecStart(vm=said, argv=["true"], delete_vm=True))],
    "Run": lambda said: [guest.RunRequest(start=guest.ExecStart(vm=said, argv=["true"], delete_vm=True))],
    "CreateSession": lambda said: [
        guest.CreateSessionRequest(
            vm=said, session_id="s", program=guest.SessionProgram(size=guest.TerminalSize(rows=24, columns=80))
        )
    ],
    "AttachSession": lambda said: [
        guest.AttachSessionRequest(
            start=guest.AttachSessionStart(vm=said, session_id="s", size=guest.TerminalSize(rows=24, columns=80))
        )
    ],
    "ListSessions": _one(guest.ListSessionsRequest),
    "ResizeSession": _one(guest.ResizeSessionRequest, session_id="s", size=guest.TerminalSize(rows=24, columns=80)),
    "KillSession": _one(guest.KillSessionRequest, session_id="s"),
    "ReadFile": _one(guest.ReadFileRequest, path="/etc/hostname"),
    "WriteFile": lambda said: [
        guest.WriteFileRequest(start=guest.WriteFileStart(vm=said, path="/tmp/x")),
        guest.WriteFileRequest(end=UploadEnd()),
    ],
    "StatFile": _one(guest.StatFileRequest, path="/etc"),
    "ListDirectory": _one(guest.ListDirectoryRequest, path="/"),
    "MakeDirectory": _one(guest.MakeDirectoryRequest, path="/nowhere/x"),
    "Remove": _one(guest.RemoveRequest, path="/nowhere/x"),
    "Rename": _one(guest.RenameRequest, path="/nowhere/x", new_path="/nowhere/y"),
    "CopyIn": lambda said: [
        guest.CopyInRequest(start=guest.CopyInStart(vm=said, path="/nowhere")),
        guest.CopyInRequest(end=UploadEnd()),
    ],
    "CopyOut": _one(guest.CopyOutRequest, path="/nowhere"),
    "Forward": lambda said: [guest.ForwardRequest(start=guest.ForwardStart(vm=said, unix_path="/nowhere"))],
    "ListPorts": _one(guest.ListPortsRequest),
    "SaveImage": _one(image.SaveImageRequest, "vm", name="saved"),
    "BeginSaveImage": _one(image.BeginSaveImageRequest, "vm", name="saved"),
}
OF_AN_OPERATION: Mapping[str, Ask] = {
    "GetOperation": _one(operation.GetOperationRequest, "operation_id"),
    "WatchOperation": _one(operation.WatchOperationRequest, "operation_id", cancel_on_disconnect=True),
    "CancelOperation": _one(operation.CancelOperationRequest, "operation_id"),
}
OF_A_SNAPSHOT: Mapping[str, Ask] = {
    "GetSnapshot": _one(snapshot.GetSnapshotRequest, "snapshot"),
    "ExportSnapshot": _one(snapshot.ExportSnapshotRequest, "snapshot"),
    "DeleteSnapshot": _one(snapshot.DeleteSnapshotRequest, "snapshot"),
    "FlattenSnapshot": _one(snapshot.FlattenSnapshotRequest, "snapshot"),
    "ForkVm": _one(vm.ForkVmRequest, "snapshot"),
    "BeginForkVm": _one(vm.BeginForkVmRequest, "snapshot"),
}
LISTS: Mapping[str, Any] = {
    "ListVms": vm.ListVmsRequest,
    "ListOperations": operation.ListOperationsRequest,
    "ListSnapshots": snapshot.ListSnapshotsRequest,
}
FOR_ALL = {
    *(
        "ListCatalogImages",
        "PullImage",
        "BeginPullImage",
        "RegisterImage",
        "GetImage",
        "ListImages",
        "PruneImages",
        "ExportImage",
        "TagImage",
        "PruneImageLayers",
    ),
    *("ListCatalogKernels", "PullKernel", "BeginPullKernel", "ImportKernel", "ListNeededModules", "GetKernel"),
    *("ListKernels", "PruneKernels", "DeleteImage", "DeleteKernel"),  # what is not the caller's is refused: see below
    *(
        "CreateVm",
        "BeginCreateVm",
        "WarmImage",
        "BeginWarmImage",
        "PruneWarmMemories",
        "ImportSnapshot",
    ),  # of one's own
    *("GetQuota",),  # see below
    *("Ping", "GetInfo", "GetSettings", "Shutdown", "Examine"),
}
"""What takes no reference to something that only its owner may know."""

"""What a caller asks of guests: a case for each method that does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.duration_pb2 import Duration

from ingle.api_server.adapters.guest.frames import FrameType
from ingle.v1 import guest_pb2, snapshot_pb2, upload_pb2, vm_pb2


@dataclass(frozen=True)
class Case:
    """`messages` are the requests to a VM; behind them the caller waits, its own side open. `endless`: content that may
    come for ever, since only its caller can tell how much is too much. `frames`: of the agent's that hold a message."""

    messages: Callable[[str], Sequence[Any]]
    endless: frozenset[FrameType] = field(default_factory=frozenset)
    frames: frozenset[FrameType] = field(default_factory=frozenset)


def _one(request: Callable[..., Any], **fields: Any) -> Case:
    return Case(lambda vm: [request(vm=vm, **fields)])


_SIZE = guest_pb2.TerminalSize(rows=24, columns=80)
_MUCH = b"x" * 500_000

CASES: Mapping[str, Case] = {
    "GuestService.Exec": Case(
        lambda vm: [
            guest_pb2.ExecRequest(start=guest_pb2.ExecStart(vm=vm, argv=["true"], open_stdin=True)),
            guest_pb2.ExecRequest(stdin_data=_MUCH),
            guest_pb2.ExecRequest(stdin_eof=guest_pb2.ExecStdinEof()),
        ],
        frozenset({FrameType.STDOUT, FrameType.STDERR}),
        frozenset({FrameType.STARTED, FrameType.EXITED, FrameType.WINDOW}),
    ),
    "GuestService.Run": Case(
        lambda vm: [guest_pb2.RunRequest(start=guest_pb2.ExecStart(vm=vm, argv=["true"]), stdin_data=_MUCH)],
        frozenset({FrameType.STDOUT, FrameType.STDERR}),
        frozenset({FrameType.STARTED, FrameType.EXITED, FrameType.WINDOW}),
    ),
    "GuestService.CreateSession": _one(guest_pb2.CreateSessionRequest, session_id="init"),
    "GuestService.AttachSession": Case(
        lambda vm: [
            guest_pb2.AttachSessionRequest(start=guest_pb2.AttachSessionStart(vm=vm, session_id="init")),
            guest_pb2.AttachSessionRequest(input=_MUCH),
        ],
        frozenset({FrameType.STDOUT, FrameType.SCROLLBACK}),
        frozenset({FrameType.ATTACHED, FrameType.EXITED, FrameType.DETACHED, FrameType.WINDOW}),
    ),
    "GuestService.ListSessions": _one(guest_pb2.ListSessionsRequest),
    "GuestService.ResizeSession": _one(guest_pb2.ResizeSessionRequest, session_id="init", size=_SIZE),
    "GuestService.KillSession": _one(guest_pb2.KillSessionRequest, session_id="init"),
    "GuestService.ReadFile": Case(
        lambda vm: [guest_pb2.ReadFileRequest(vm=vm, path="/f")], frozenset({FrameType.DATA})
    ),
    "GuestService.WriteFile": Case(
        lambda vm: [
            guest_pb2.WriteFileRequest(start=guest_pb2.WriteFileStart(vm=vm, path="/f")),
            *[guest_pb2.WriteFileRequest(data=_MUCH)] * 8,
            guest_pb2.WriteFileRequest(end=upload_pb2.UploadEnd()),
        ]
    ),
    "GuestService.StatFile": _one(guest_pb2.StatFileRequest, path="/f"),
    "GuestService.ListDirectory": Case(
        lambda vm: [guest_pb2.ListDirectoryRequest(vm=vm, path="/")], frames=frozenset({FrameType.ENTRIES})
    ),
    "GuestService.MakeDirectory": _one(guest_pb2.MakeDirectoryRequest, path="/d"),
    "GuestService.Remove": _one(guest_pb2.RemoveRequest, path="/d", recursive=True),
    "GuestService.Rename": _one(guest_pb2.RenameRequest, path="/a", new_path="/b"),
    "GuestService.CopyIn": Case(
        lambda vm: [
            guest_pb2.CopyInRequest(start=guest_pb2.CopyInStart(vm=vm, path="/d")),
            *[guest_pb2.CopyInRequest(data=_MUCH)] * 8,
            guest_pb2.CopyInRequest(end=upload_pb2.UploadEnd()),
        ]
    ),
    "GuestService.CopyOut": Case(lambda vm: [guest_pb2.CopyOutRequest(vm=vm, path="/d")], frozenset({FrameType.DATA})),
    "GuestService.Forward": Case(
        lambda vm: [
            guest_pb2.ForwardRequest(
                start=guest_pb2.ForwardStart(
                    vm=vm, tcp=guest_pb2.TcpTarget(port=80), connect_timeout=Duration(nanos=500_000_000)
                )
            ),
            guest_pb2.ForwardRequest(data=_MUCH),
        ],
        frozenset({FrameType.DATA}),
        frozenset({FrameType.CONNECTED, FrameType.WINDOW}),
    ),
    "GuestService.ListPorts": _one(guest_pb2.ListPortsRequest),
    "VmService.StartVm": _one(vm_pb2.StartVmRequest),
    "VmService.StopVm": _one(vm_pb2.StopVmRequest, timeout=Duration(seconds=1)),
    "VmService.RestartVm": _one(vm_pb2.RestartVmRequest, timeout=Duration(seconds=1)),
    "VmService.HibernateVm": _one(vm_pb2.HibernateVmRequest),
    "VmService.ResumeVm": _one(vm_pb2.ResumeVmRequest),
    "VmService.GetVmHealth": _one(vm_pb2.GetVmHealthRequest, patience=Duration(nanos=500_000_000)),
    "VmService.PingVm": Case(
        lambda vm: [vm_pb2.PingVmRequest(vm=vm)], frames=frozenset({FrameType.HELLO_OK, FrameType.ERROR})
    ),
    "VmService.GetVmStats": _one(vm_pb2.GetVmStatsRequest),
    "SnapshotService.CreateSnapshot": _one(snapshot_pb2.CreateSnapshotRequest),
}

ASK_NO_GUEST = {
    # Their start is StartVm's.
    "VmService.CreateVm",
    "VmService.BeginCreateVm",
    "VmService.ForkVm",
    "VmService.BeginForkVm",
    "VmService.RestoreVm",
    # Its end is ResumeVm's.
    "VmService.WakeVm",
    "VmService.PauseVm",
    "VmService.GetVm",
    "VmService.ListVms",
    "VmService.UpdateVm",
    "VmService.KillVm",
    "VmService.DeleteVm",
    # A guest fills it, but not by the agent's protocol.
    "VmService.StreamVmLogs",
    # It is CreateSnapshot.
    "SnapshotService.BeginCreateSnapshot",
    "SnapshotService.GetSnapshot",
    "SnapshotService.ListSnapshots",
    "SnapshotService.ExportSnapshot",
    "SnapshotService.ImportSnapshot",
    "SnapshotService.DeleteSnapshot",
    "SnapshotService.FlattenSnapshot",
}

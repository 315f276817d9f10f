"""What the stand-in server knows, and what happened to it."""

from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from ingle.v1 import error_pb2, guest_pb2, operation_pb2, vm_pb2

OP_ID = "op-0123456789ab"
ACTIVITY = vm_pb2.GuestActivity(idle=Duration(seconds=3, nanos=500_000_000), execs=1)
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class World:
    """What the server knows, and what happened to it."""

    vms: dict[str, vm_pb2.Vm] = field(default_factory=dict)
    created: list[vm_pb2.VmSpec] = field(default_factory=list)
    changes: list[tuple[str, str]] = field(default_factory=list)
    updates: list[vm_pb2.UpdateVmRequest] = field(default_factory=list)
    ephemeral: list[bool] = field(default_factory=list)
    deleted_after_exec: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    execs: list[guest_pb2.ExecStart] = field(default_factory=list)
    attached: list[guest_pb2.AttachSessionStart] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    # Stops answer only when so many are under way: those of one command line must come side by side.
    stops_together: int = 1
    # What a change may ask for.
    most_memory: int = 1 << 40
    # A change is under way for ever.
    hold_updates: bool = False
    # A command does not begin.
    hold_execs: bool = False
    # A create stays in its second stage until it is cancelled.
    hold_creates: bool = False
    held_fraction: float | None = None
    create_error: error_pb2.Failure | None = None
    # Of the disk of every VM that runs, and what is wrong with it.
    disk_changes: vm_pb2.DiskChanges | None = None
    problem: str = ""
    operations: list[operation_pb2.Operation] = field(default_factory=list)
    hung: bool = False
    running_acceleration: "vm_pb2.Acceleration.ValueType" = vm_pb2.ACCELERATION_KVM

    def add_vm(self, name: str, state: "vm_pb2.VmState.ValueType" = vm_pb2.VM_STATE_RUNNING, **facts: Any) -> vm_pb2.Vm:
        vm = vm_pb2.Vm(id=f"{len(self.vms) + 1:012x}", name=name, state=state, vcpus=1, memory_bytes=256 << 20, **facts)
        vm.created_at.FromSeconds(1_700_000_000)
        self.vms[vm.id] = vm
        return vm

    async def find(self, reference: str, context: Context) -> vm_pb2.Vm:
        found = [vm for vm in self.vms.values() if vm.name == reference or vm.id == reference]
        if not found:
            await refuse(context, "VM_NOT_FOUND", f"no VM is called {reference!r}", "ingle vm list")
        return found[0]


async def refuse(context: Context, reason: str, message: str, remedy: str = "") -> NoReturn:
    info = ErrorInfo(reason=reason, domain="ingle", metadata={"op_id": OP_ID})
    if remedy:
        info.metadata["remedy"] = remedy
    detail = AnyMessage()
    detail.Pack(info)
    status = Status(code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message=message, details=[detail])
    await context.abort(
        grpc.StatusCode.FAILED_PRECONDITION,
        message,
        (("ingle-op-id", OP_ID), ("grpc-status-details-bin", status.SerializeToString())),
    )

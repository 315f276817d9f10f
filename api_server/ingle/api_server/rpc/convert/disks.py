"""What files take."""

from ingle.api_server.operations.disk_usage import FileSystem, Usage, Use, VmUse
from ingle.v1 import system_pb2


def disk_usage(value: Usage, *, each_vm: bool) -> system_pb2.GetDiskUsageResponse:
    """All of it, with a row of each VM if that is asked for."""
    return system_pb2.GetDiskUsageResponse(
        uses=[_use(use) for use in value.uses],
        file_systems=[_file_system(each) for each in value.file_systems],
        vms=[_vm(use) for use in value.vms] if each_vm else (),
        incomplete=not value.whole,
    )


def _use(value: Use) -> system_pb2.DiskUse:
    return system_pb2.DiskUse(
        kind=system_pb2.DiskUseKind.Value(f"DISK_USE_KIND_{value.kind.name}"),
        count=value.count,
        apparent_bytes=value.apparent,
        allocated_bytes=value.allocated,
        reclaimable_bytes=value.reclaimable,
        command=value.command,
    )


def _file_system(value: FileSystem) -> system_pb2.FileSystem:
    return system_pb2.FileSystem(
        path=str(value.path), size_bytes=value.size, free_bytes=value.free, promised_bytes=value.promised
    )


def _vm(value: VmUse) -> system_pb2.VmDiskUse:
    return system_pb2.VmDiskUse(
        vm_id=value.vm.id,
        name=value.vm.name,
        owner=value.vm.owner,
        disk_bytes=value.vm.settings.disk_bytes,
        allocated_bytes=value.allocated,
        shared_bytes=value.shared,
        logs_bytes=value.logs,
        memory_bytes=value.memory,
    )

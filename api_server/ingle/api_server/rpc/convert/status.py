"""How VMs are."""

from ingle.api_server.model.guest import (
    GuestActivity,
    InterfaceStats,
)
from ingle.api_server.operations.inspect_vm import Health, Stats
from ingle.api_server.ports.disk import DiskChanges
from ingle.api_server.ports.engine import DiskTraffic
from ingle.api_server.rpc.convert.times import duration
from ingle.api_server.rpc.convert.vms import VM_STATES
from ingle.v1 import vm_pb2


def health(value: Health) -> vm_pb2.GetVmHealthResponse:
    """A verdict on a VM."""
    return vm_pb2.GetVmHealthResponse(
        state=VM_STATES[value.state],
        vmm_alive=value.vmm_alive,
        agent_answers=value.agent_answers,
        problem=value.problem,
        activity=None if value.activity is None else _activity(value.activity),
        disk_changes=None if value.changes is None else _disk_changes(value.changes),
    )


def stats(value: Stats) -> vm_pb2.GetVmStatsResponse:
    """Both views; the guest's is unset when it did not answer."""
    message = vm_pb2.GetVmStatsResponse(
        vmm=vm_pb2.VmmStats(
            cpu_time=duration(value.vmm.cpu_seconds),
            resident_bytes=value.vmm.resident_bytes,
            disk_allocated_bytes=value.disk_allocated_bytes,
            disk_traffic=None if value.traffic is None else _disk_traffic(value.traffic),
        )
    )
    if value.guest is not None:
        guest = value.guest
        message.guest.CopyFrom(
            vm_pb2.GuestStats(
                uptime=duration(guest.uptime_seconds),
                load_1m=guest.load[0],
                load_5m=guest.load[1],
                load_15m=guest.load[2],
                memory_total_bytes=guest.memory_total_bytes,
                memory_available_bytes=guest.memory_available_bytes,
                disk_total_bytes=guest.disk_total_bytes,
                disk_available_bytes=guest.disk_available_bytes,
                processes=guest.processes,
                cpu_total=duration(guest.cpu_total_seconds),
                cpu_idle=duration(guest.cpu_idle_seconds),
                cpus=guest.cpus,
                interfaces=map(_interface, guest.interfaces),
            )
        )
    if value.activity is not None:
        message.activity.CopyFrom(_activity(value.activity))
    if value.changes is not None:
        message.disk_changes.CopyFrom(_disk_changes(value.changes))
    return message


def _disk_changes(value: DiskChanges) -> vm_pb2.DiskChanges:
    return vm_pb2.DiskChanges(
        used_bytes=value.used_bytes,
        capacity_bytes=value.capacity_bytes,
        room_bytes=value.room_bytes,
        overflowed=value.overflowed,
    )


def _disk_traffic(value: DiskTraffic) -> vm_pb2.DiskTraffic:
    return vm_pb2.DiskTraffic(
        reads=value.reads, read_bytes=value.read_bytes, writes=value.writes, written_bytes=value.written_bytes
    )


def _interface(value: InterfaceStats) -> vm_pb2.InterfaceStats:
    return vm_pb2.InterfaceStats(
        name=value.name,
        received_bytes=value.received_bytes,
        received_packets=value.received_packets,
        receive_errors=value.receive_errors,
        sent_bytes=value.sent_bytes,
        sent_packets=value.sent_packets,
        send_errors=value.send_errors,
    )


def _activity(value: GuestActivity) -> vm_pb2.GuestActivity:
    return vm_pb2.GuestActivity(
        idle=duration(value.idle_seconds),
        execs=value.execs,
        sessions=value.sessions,
        attached_sessions=value.attached_sessions,
        forwards=value.forwards,
    )

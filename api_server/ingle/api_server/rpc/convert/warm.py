"""Memories that VMs begin with."""

from ingle.api_server.operations.warm_starts import Listed
from ingle.api_server.rpc.convert.times import timestamp
from ingle.api_server.rpc.convert.vms import ACCELERATIONS, INITS
from ingle.v1 import image_pb2


def warm_memory(listed: Listed) -> image_pb2.WarmMemory:
    """One that is there."""
    memory, machine = listed.memory, listed.memory.machine
    return image_pb2.WarmMemory(
        key=memory.key,
        image_id=machine.image_id,
        kernel_id=machine.kernel_id,
        engine=machine.engine,
        acceleration=ACCELERATIONS[machine.acceleration],
        vcpus=machine.vcpus,
        memory_bytes=machine.memory_bytes,
        disk_bytes=machine.disk_bytes,
        disk_backend=machine.disk_backend,
        init=INITS[machine.init],
        allocated_bytes=memory.allocated_bytes,
        created_at=timestamp(memory.created_at),
        used_at=timestamp(memory.used_at),
        vms=listed.vms,
        usable=listed.usable,
        owner=machine.owner,
    )

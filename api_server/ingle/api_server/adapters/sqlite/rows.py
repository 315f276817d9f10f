"""Rows to model values and back. Columns are named after the fields they hold."""

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from ingle.api_server.model.errors import Reason
from ingle.api_server.model.network import Protocol, PublishedPort
from ingle.api_server.model.operation import Failure, Operation, OperationKind, OperationState, Stage
from ingle.api_server.model.vm import Acceleration, Image, Init, Kernel, Running, Vm, VmState

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EMPTY_OBJECT = "{}"

# In the order vm_of takes them: unpacking a row costs a third of looking its columns up by name.
SELECT_VMS = """
    SELECT
        id, name, state, image_id, image_name, kernel_id, kernel_name, engine, vms.acceleration, disk_backend,
        vcpus, memory_bytes, disk_bytes, created_at, env, ports, network, slot, nat, init, ssh_keys, error,
        pid, start_time, running.acceleration, started_at, boot_id, address, address6
    FROM vms LEFT JOIN running ON running.vm_id = vms.id
"""
SELECT_IMAGES = """
    SELECT images.*, (SELECT json_group_array(name) FROM image_names WHERE image_id = images.id) AS names
    FROM images
"""
SELECT_KERNELS = """
    SELECT kernels.*, (SELECT json_group_array(name) FROM kernel_names WHERE kernel_id = kernels.id) AS names
    FROM kernels
"""


def micros(time: datetime) -> int:
    """As the tables hold times. Exact: a float could not hold it."""
    return (time - _EPOCH) // _MICROSECOND


def time_of(value: int) -> datetime:
    """The inverse of micros. Exact: a double holds microseconds until the year 2255."""
    return datetime.fromtimestamp(value / 1e6, UTC)


def vm_of(row: sqlite3.Row) -> Vm:
    """A row of SELECT_VMS."""
    *wanted, error, pid, start_time, runs_on, started, boot, address, address6 = row
    *asked, env, ports, network, slot, nat, init, ssh_keys = wanted
    vm_id, name, state, image_id, image_name, kernel_id, kernel_name, engine, *machine = asked
    acceleration, backend, vcpus, memory, disk, created = machine
    return Vm(
        id=vm_id,
        name=name,
        state=VmState(state),
        image_id=image_id,
        image_name=image_name,
        kernel_id=kernel_id,
        kernel_name=kernel_name,
        engine=engine,
        acceleration=Acceleration(acceleration),
        disk_backend=backend,
        vcpus=vcpus,
        memory_bytes=memory,
        disk_bytes=disk,
        created_at=time_of(created),
        env=json.loads(env) if env != _EMPTY_OBJECT else {},
        ports=_ports_of(ports),
        network=network,
        slot=slot,
        nat=bool(nat),
        init=Init(init),
        ssh_keys=_ssh_keys_of(ssh_keys),
        error=error,
        running=None
        if pid is None
        else Running(pid, start_time, Acceleration(runs_on), time_of(started), boot, address, address6),
    )


def vm_columns(vm: Vm) -> dict[str, Any]:
    """The columns of `vms` that a Vm knows: all but the token."""
    return {
        "id": vm.id,
        "name": vm.name,
        "state": vm.state.value,
        "image_id": vm.image_id,
        "image_name": vm.image_name,
        "kernel_id": vm.kernel_id,
        "kernel_name": vm.kernel_name,
        "engine": vm.engine,
        "acceleration": vm.acceleration.value,
        "disk_backend": vm.disk_backend,
        "vcpus": vm.vcpus,
        "memory_bytes": vm.memory_bytes,
        "disk_bytes": vm.disk_bytes,
        "created_at": micros(vm.created_at),
        "env": json.dumps(dict(vm.env)),
        "ports": json.dumps([(each.host_port, each.vm_port, each.protocol.value, each.address) for each in vm.ports]),
        "network": vm.network,
        "slot": vm.slot,
        "nat": int(vm.nat),
        "init": vm.init.value,
        "ssh_keys": json.dumps(vm.ssh_keys),
        "error": vm.error,
    }


# VMs have a lot in common, and parsing JSON was a third of what a list of them took.


@lru_cache(maxsize=1024)
def _ports_of(column: str) -> tuple[PublishedPort, ...]:
    return tuple(
        PublishedPort(host_port, vm_port, Protocol(protocol), *address)  # which earlier versions did not have
        for host_port, vm_port, protocol, *address in json.loads(column)
    )


@lru_cache(maxsize=1024)
def _ssh_keys_of(column: str) -> tuple[str, ...]:
    return tuple(json.loads(column))


def running_columns(vm_id: str, running: Running) -> dict[str, Any]:
    """The columns of `running`."""
    return {
        "vm_id": vm_id,
        "pid": running.pid,
        "start_time": running.start_time,
        "acceleration": running.acceleration.value,
        "started_at": micros(running.started_at),
        "boot_id": running.boot_id,
        "address": running.address,
        "address6": running.address6,
    }


def image_of(row: sqlite3.Row) -> Image:
    """A row of SELECT_IMAGES."""
    return Image(
        id=row["id"],
        names=tuple(sorted(json.loads(row["names"]))),
        size_bytes=row["size_bytes"],
        created_at=time_of(row["created_at"]),
        source=row["source"],
    )


def image_columns(image: Image) -> dict[str, Any]:
    """The columns of `images`."""
    return {
        "id": image.id,
        "size_bytes": image.size_bytes,
        "created_at": micros(image.created_at),
        "source": image.source,
    }


def kernel_of(row: sqlite3.Row) -> Kernel:
    """A row of SELECT_KERNELS."""
    return Kernel(
        id=row["id"],
        names=tuple(sorted(json.loads(row["names"]))),
        release=row["release"],
        size_bytes=row["size_bytes"],
        modules=tuple(json.loads(row["modules"])),
        created_at=time_of(row["created_at"]),
        source=row["source"],
    )


def kernel_columns(kernel: Kernel) -> dict[str, Any]:
    """The columns of `kernels`."""
    return {
        "id": kernel.id,
        "release": kernel.release,
        "size_bytes": kernel.size_bytes,
        "modules": json.dumps(kernel.modules),
        "created_at": micros(kernel.created_at),
        "source": kernel.source,
    }


def operation_of(row: sqlite3.Row) -> Operation:
    """A row of `operations`."""
    failure = None
    if row["reason"] is not None:
        failure = Failure(Reason[row["reason"]], row["message"], row["remedy"])
    return Operation(
        id=row["id"],
        kind=OperationKind[row["kind"]],
        state=OperationState[row["state"]],
        created_at=time_of(row["created_at"]),
        finished_at=None if row["finished_at"] is None else time_of(row["finished_at"]),
        target_id=row["target_id"],
        stages=tuple(_stage_of(item) for item in json.loads(row["stages"])),
        failure=failure,
    )


def operation_columns(operation: Operation) -> dict[str, Any]:
    """The columns of `operations`."""
    failure = operation.failure
    return {
        "id": operation.id,
        "kind": operation.kind.name,
        "state": operation.state.name,
        "created_at": micros(operation.created_at),
        "finished_at": None if operation.finished_at is None else micros(operation.finished_at),
        "target_id": operation.target_id,
        "stages": json.dumps([_stage_columns(stage) for stage in operation.stages]),
        "reason": failure and failure.reason.name,
        "message": failure and failure.message,
        "remedy": failure and failure.remedy,
    }


def update(table: str, columns: Mapping[str, Any]) -> str:
    """The statement that sets these columns of the row with this `id`."""
    changes = ", ".join(f"{name} = :{name}" for name in columns if name != "id")
    return f"UPDATE {table} SET {changes} WHERE id = :id"


def _stage_of(item: dict[str, Any]) -> Stage:
    ended = item["finished_at"]
    return Stage(
        name=item["name"],
        text=item["text"],
        started_at=time_of(item["started_at"]),
        finished_at=None if ended is None else time_of(ended),
        fraction=item["fraction"],
    )


def _stage_columns(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "text": stage.text,
        "started_at": micros(stage.started_at),
        "finished_at": None if stage.finished_at is None else micros(stage.finished_at),
        "fraction": stage.fraction,
    }

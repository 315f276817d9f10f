"""What it saves to begin with a memory: time until a VM is of use, and the host's memory."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.measure import Figure, Row, Sample, alternately, ratio_row, rss_mib
from harness import Server
from ingle.v1 import image_pb2, operation_pb2, vm_pb2

_VMS = 6
_FORKS = (10, 50)
_MIB_OF_KB = 1024


def begin_warm(server: Server, count: int) -> Iterator[Row | Figure]:
    """From the create call to the answer of the first command, beside the same with a boot; what each step of it takes;
    and a VMM's proportional share of the host's memory, when six began with the same, beside one that has booted."""
    server.images.WarmImage(image_pb2.WarmImageRequest())
    first_exec(server, vm_pb2.BOOT_MODE_WARM)  # the hashes are looked at once
    warm, cold = alternately(
        count,
        lambda: first_exec(server, vm_pb2.BOOT_MODE_WARM),
        lambda: first_exec(server, vm_pb2.BOOT_MODE_COLD),
    )
    yield ratio_row("create -> first exec, from a memory", warm, "the same with a boot", cold, 0.1)
    yield from stages(server)
    booted = create(server, vm_pb2.BOOT_MODE_COLD)
    used = pss_mib(booted.pid)
    began = [create(server, vm_pb2.BOOT_MODE_WARM) for _ in range(_VMS)]
    each = sum(pss_mib(vm.pid) for vm in began) / _VMS
    yield Figure("PSS of a VM that has booted", used, "MiB")
    yield Figure(f"PSS of one of {_VMS} that began with a memory, beside that", each / used, "x", 0.3)
    delete(server, booted, *began)
    yield from fork_many(server, count)


def fork_many(server: Server, count: int) -> Iterator[Figure]:
    """From the call to the answer of each fork's first command, beside one fork; and what each VM costs the server."""
    assert server.process is not None
    source = create(server, vm_pb2.BOOT_MODE_WARM)
    one = Sample(tuple(forks_answer(server, source, 1) for _ in range(count)))
    yield Figure("1 fork of a running VM, until it has run a command (p50)", one.percentile(50) * 1000, "ms")
    for many in _FORKS:
        before = rss_mib(server.process.pid)
        took = forks_answer(server, source, many)
        yield Figure(f"{many} forks, beside one", took / one.percentile(50), "x", 12 if many == max(_FORKS) else None)
        each = (rss_mib(server.process.pid) - before) / many
        yield Figure(f"  the server's memory, for each of {many}", each, "MiB", 1)
    delete(server, source)


def forks_answer(server: Server, source: vm_pb2.Vm, count: int) -> float:
    """Seconds."""
    request = vm_pb2.ForkVmRequest(vm=source.id, count=count, name="fork-{}")
    began = time.perf_counter()
    forks = server.vms.ForkVm(request).vms
    with ThreadPoolExecutor(count) as callers:
        list(callers.map(lambda fork: server.run(fork.id, "true"), forks))
    took = time.perf_counter() - began
    delete(server, *forks)
    return took


def first_exec(server: Server, mode: "vm_pb2.BootMode.ValueType") -> float:
    """Seconds."""
    began = time.perf_counter()
    vm = create(server, mode)
    code, out, _ = server.run(vm.id, "echo", "hello")
    took = time.perf_counter() - began
    assert (code, out) == (0, b"hello\n")
    assert vm.boot_mode == mode
    delete(server, vm)
    return took


def stages(server: Server) -> Iterator[Figure]:
    """What took a millisecond or more in a create."""
    vm = create(server, vm_pb2.BOOT_MODE_WARM)
    operations = server.operations.ListOperations(operation_pb2.ListOperationsRequest()).operations
    (made,) = (each for each in operations if each.target_id == vm.id)
    for stage in made.stages:
        took = (stage.finished_at.ToDatetime() - stage.started_at.ToDatetime()).total_seconds() * 1000
        if took >= 1:
            yield Figure(f"  of which {stage.name}", took, "ms")
    delete(server, vm)


def create(server: Server, mode: "vm_pb2.BootMode.ValueType") -> vm_pb2.Vm:
    return server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(boot_mode=mode))).vm


def delete(server: Server, *vms: vm_pb2.Vm) -> None:
    for vm in vms:
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def pss_mib(pid: int) -> float:
    """What a process has of the host's memory, its share of what it shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / _MIB_OF_KB for line in lines if line.startswith("Pss:"))

"""Clients of a system's server for tests of what is left when it is killed, or when they give up."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import grpc
from google.protobuf.duration_pb2 import Duration

from ingle.cli.jsonable import to_json
from ingle.v1 import operation_pb2, operation_pb2_grpc, protocol_pb2, vm_pb2, vm_pb2_grpc

CLIENTS, NAMES = 3, 5
_MEMORY = 128 << 20


class Client:
    """A connection of its own to the system's server; a context manager."""

    def __init__(self) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        self._channel = grpc.insecure_channel("unix:/run/ingle/api.sock", options=options)
        self.vms = vm_pb2_grpc.VmServiceStub(self._channel)
        self.operations = operation_pb2_grpc.OperationServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._channel.close()

    def listed(self) -> list[dict[str, Any]]:
        """As `vm list --json` has it."""
        return [to_json(vm) for vm in self.vms.ListVms(vm_pb2.ListVmsRequest()).vms]


def spec(number: int) -> vm_pb2.VmSpec:
    """VMs of two networks, some with NAT, each with a port of its own."""
    return vm_pb2.VmSpec(
        name=f"proof-{number}",
        memory_bytes=_MEMORY,
        network=("default", "backend")[number % 2],
        nat=number % 3 == 0,
        ports=[vm_pb2.PublishedPort(host_port=20000 + number, vm_port=80, protocol=protocol_pb2.PROTOCOL_TCP)],
    )


@contextmanager
def busy(chance: random.Random, done: "Counter[str]") -> Iterator[None]:
    """Clients create, start, stop and delete VMs meanwhile, all the same few. In the end the server must have been
    killed: nothing else ends a call that is under way. `done` counts what they did, and what was refused."""
    stopping = threading.Event()
    clients = [
        threading.Thread(target=_keep_busy, args=(chance.random(), stopping, done), daemon=True) for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        stopping.set()
        for client in clients:
            client.join()


def _keep_busy(seed: float, stopping: threading.Event, done: "Counter[str]") -> None:
    chance = random.Random(seed)
    with Client() as client:
        while not stopping.is_set():
            what, call = _choice(client, chance)
            try:
                call()
                done[what] += 1
            except grpc.RpcError as error:
                done[f"not {what}"] += 1
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    return


def _choice(client: Client, chance: random.Random) -> tuple[str, Callable[[], object]]:
    number = chance.randrange(NAMES)
    name = f"proof-{number}"
    calls: dict[str, Callable[[], object]] = {
        "created": lambda: client.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec(number), no_start=True)),
        "created and started": lambda: client.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec(number))),
        "started": lambda: client.vms.StartVm(vm_pb2.StartVmRequest(vm=name)),
        "stopped": lambda: client.vms.StopVm(vm_pb2.StopVmRequest(vm=name, timeout=Duration(seconds=1))),
        "deleted": lambda: client.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=name, force=True)),
    }
    (what,) = chance.choices(list(calls), (3, 5, 5, 2, 3))
    return what, calls[what]


def give_up(client: Client, creates: int) -> "Counter[str]":
    """Create VMs, and cancel each create at the next of the stages that a whole one has. Answers how they ended."""
    ends: Counter[str] = Counter()
    whole = client.vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest(spec=spec(0))).operation_id
    *_, last = client.operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id=whole))
    stages = [stage.name for stage in last.operation.stages]
    assert {"network", "launch", "record"} <= set(stages), stages
    client.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm="proof-0", force=True))
    for cycle in range(creates):
        begun = client.vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest(spec=spec(cycle))).operation_id
        wanted = stages[cycle % len(stages)]
        for told in client.operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id=begun)):
            if wanted in {stage.name for stage in told.operation.stages}:
                with suppress(grpc.RpcError):  # the last stages are over before one can say so
                    client.operations.CancelOperation(operation_pb2.CancelOperationRequest(operation_id=begun))
        ends[operation_pb2.OperationState.Name(told.operation.state)] += 1
        with suppress(grpc.RpcError):
            client.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=f"proof-{cycle}", force=True))
    return ends

"""VmService."""

from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from ingle.api_server.gate import peer_pid
from ingle.api_server.host.context import current_operation
from ingle.api_server.host.process import start_time_of
from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.vm import Owner, Vm
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.inspect_vm import PATIENCE_SECONDS, InspectVm
from ingle.api_server.operations.owners import Owners
from ingle.api_server.operations.runner import Running
from ingle.api_server.operations.start_vm import StartVm
from ingle.api_server.operations.stop_vm import StopVm
from ingle.api_server.operations.update_vm import UpdateVm
from ingle.api_server.ports.store import Store
from ingle.api_server.rpc import convert
from ingle.v1 import vm_pb2, vm_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"

_STOP_SECONDS = 10.0
_LONGEST_STOP_SECONDS = 3600.0

# An enum value is the signal's number; an unset one means the surest.
_SIGNALS = {number: number or vm_pb2.VM_SIGNAL_KILL for number in vm_pb2.VmSignal.values()}


class VmServicer(vm_pb2_grpc.VmServiceServicer):
    """VMs."""

    def __init__(
        self,
        store: Store,
        start: StartVm,
        stop: StopVm,
        delete: DeleteVm,
        update: UpdateVm,
        inspect: InspectVm,
        owners: Owners,
    ) -> None:
        self._store = store
        self._start = start
        self._stop = stop
        self._delete = delete
        self._update = update
        self._inspect = inspect
        self._owners = owners

    async def CreateVm(self, request: vm_pb2.CreateVmRequest, context: Context) -> vm_pb2.CreateVmResponse:
        running = await self._create(request, context)
        return vm_pb2.CreateVmResponse(vm=convert.vm(await running.result()))

    async def BeginCreateVm(
        self, request: vm_pb2.BeginCreateVmRequest, context: Context
    ) -> vm_pb2.BeginCreateVmResponse:
        running = await self._create(request, context)
        return vm_pb2.BeginCreateVmResponse(operation=convert.operation(running.operation))

    async def GetVm(self, request: vm_pb2.GetVmRequest, context: Context) -> vm_pb2.GetVmResponse:
        return vm_pb2.GetVmResponse(vm=self._told(await self._store.find_vm(request.vm)))

    async def ListVms(self, request: vm_pb2.ListVmsRequest, context: Context) -> vm_pb2.ListVmsResponse:
        return vm_pb2.ListVmsResponse(vms=[self._told(vm) for vm in await self._store.vms()])

    async def UpdateVm(self, request: vm_pb2.UpdateVmRequest, context: Context) -> vm_pb2.UpdateVmResponse:
        running = await self._update.update(current_operation.get(), request.vm, convert.vm_change(request))
        return vm_pb2.UpdateVmResponse(vm=convert.vm(await running.result()))

    async def StartVm(self, request: vm_pb2.StartVmRequest, context: Context) -> vm_pb2.StartVmResponse:
        running = await self._start.start(current_operation.get(), request.vm)
        return vm_pb2.StartVmResponse(vm=convert.vm(await running.result()))

    async def StopVm(self, request: vm_pb2.StopVmRequest, context: Context) -> vm_pb2.StopVmResponse:
        running = await self._stop.stop(current_operation.get(), request.vm, _timeout(request))
        return vm_pb2.StopVmResponse(vm=convert.vm(await running.result()))

    async def RestartVm(self, request: vm_pb2.RestartVmRequest, context: Context) -> vm_pb2.RestartVmResponse:
        running = await self._stop.restart(current_operation.get(), request.vm, _timeout(request))
        return vm_pb2.RestartVmResponse(vm=convert.vm(await running.result()))

    async def KillVm(self, request: vm_pb2.KillVmRequest, context: Context) -> vm_pb2.KillVmResponse:
        if request.signal not in _SIGNALS:
            raise InvalidArgument(f"signal {request.signal}: HUP, INT, KILL or TERM is allowed")
        running = await self._stop.kill(current_operation.get(), request.vm, _SIGNALS[request.signal])
        return vm_pb2.KillVmResponse(vm=convert.vm(await running.result()))

    async def DeleteVm(self, request: vm_pb2.DeleteVmRequest, context: Context) -> vm_pb2.DeleteVmResponse:
        running = await self._delete.delete(current_operation.get(), request.vm, force=request.force)
        await running.result()
        return vm_pb2.DeleteVmResponse()

    async def GetVmHealth(self, request: vm_pb2.GetVmHealthRequest, context: Context) -> vm_pb2.GetVmHealthResponse:
        patience = PATIENCE_SECONDS
        if request.HasField("patience"):
            patience = convert.seconds_of(request.patience, "patience")
        return convert.health(await self._inspect.health(request.vm, patience))

    async def PingVm(self, request: vm_pb2.PingVmRequest, context: Context) -> vm_pb2.PingVmResponse:
        seconds, info = await self._inspect.ping(request.vm)
        return vm_pb2.PingVmResponse(round_trip=convert.duration(seconds), agent_version=info.agent_version)

    async def GetVmStats(self, request: vm_pb2.GetVmStatsRequest, context: Context) -> vm_pb2.GetVmStatsResponse:
        return convert.stats(await self._inspect.stats(request.vm))

    async def StreamVmLogs(
        self, request: vm_pb2.StreamVmLogsRequest, context: Context
    ) -> AsyncIterator[vm_pb2.StreamVmLogsResponse]:
        if request.source not in vm_pb2.LogSource.values():
            raise InvalidArgument(f"source {request.source}: CONSOLE or VMM is allowed")
        logs = self._inspect.logs(
            request.vm,
            vmm=request.source == vm_pb2.LOG_SOURCE_VMM,
            follow=request.follow,
            tail_lines=request.tail_lines if request.HasField("tail_lines") else None,
        )
        async for data in logs:
            yield vm_pb2.StreamVmLogsResponse(data=data)

    def _told(self, vm: Vm) -> vm_pb2.Vm:
        message = convert.vm(vm)
        message.problem = self._inspect.stalled(vm)
        return message

    async def _create(
        self, request: vm_pb2.CreateVmRequest | vm_pb2.BeginCreateVmRequest, context: Context
    ) -> Running[Vm]:
        owner = _caller(context) if request.ephemeral else None
        spec = convert.vm_spec(request.spec)
        running = await self._start.create(current_operation.get(), spec, start=not request.no_start, owner=owner)
        if owner is not None:
            self._owners.watch(running, owner)
        return running


def _caller(context: Context) -> Owner:
    pid = peer_pid(context.peer())
    if pid == 0:
        raise InvalidArgument("ephemeral: the server can't see the process that calls (is it in a container?)")
    return Owner(pid, start_time_of(pid) or 0)  # one that is gone by now is no other process's start time


def _timeout(request: vm_pb2.StopVmRequest | vm_pb2.RestartVmRequest) -> float:
    if not request.HasField("timeout"):
        return _STOP_SECONDS
    return convert.seconds_of(request.timeout, "timeout", _LONGEST_STOP_SECONDS)

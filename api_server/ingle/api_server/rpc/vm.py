"""VmService."""

import hashlib
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from ingle.api_server.host.context import current_operation
from ingle.api_server.host.process import start_time_of
from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.operation import Operation, OperationState
from ingle.api_server.model.vm import Keeper, Vm
from ingle.api_server.operations.between_boots import BetweenBoots
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.fork_vm import Forking, ForkVm, ForkWish
from ingle.api_server.operations.inspect_vm import PATIENCE_SECONDS, InspectVm
from ingle.api_server.operations.keepers import Keepers
from ingle.api_server.operations.repeats import Repeats
from ingle.api_server.operations.restore_vm import RestoreVm
from ingle.api_server.operations.runner import Ongoing
from ingle.api_server.operations.sleep_vm import SleepVm
from ingle.api_server.operations.start_vm import StartVm
from ingle.api_server.operations.stop_vm import StopVm
from ingle.api_server.operations.update_vm import UpdateVm
from ingle.api_server.operations.wake_vm import WakeVm
from ingle.api_server.operations.watch_health import WatchHealth
from ingle.api_server.ports.store.requests import Asked, RequestKey
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.rpc import convert, who
from ingle.api_server.rpc.paging import by_time, page
from ingle.v1 import signal_pb2, vm_pb2, vm_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"

_STOP_SECONDS = 10.0
_LONGEST_STOP_SECONDS = 3600.0

_SIGNALS = {
    signal_pb2.SIGNAL_UNSPECIFIED: signal_pb2.SIGNAL_KILL,  # the surest
    signal_pb2.SIGNAL_HUP: signal_pb2.SIGNAL_HUP,
    signal_pb2.SIGNAL_INT: signal_pb2.SIGNAL_INT,
    signal_pb2.SIGNAL_KILL: signal_pb2.SIGNAL_KILL,
    signal_pb2.SIGNAL_TERM: signal_pb2.SIGNAL_TERM,
}
"""What a VMM may get for what is asked."""


class VmServicer(vm_pb2_grpc.VmServiceServicer):
    """VMs."""

    def __init__(
        self,
        vms: VmStore,
        start: StartVm,
        stop: StopVm,
        between_boots: BetweenBoots,
        sleep: SleepVm,
        wake: WakeVm,
        delete: DeleteVm,
        update: UpdateVm,
        inspect: InspectVm,
        health: WatchHealth,
        keepers: Keepers,
        repeats: Repeats,
        fork: ForkVm,
        restore: RestoreVm,
    ) -> None:
        self._vms = vms
        self._start = start
        self._stop = stop
        self._between_boots = between_boots
        self._sleep = sleep
        self._wake = wake
        self._delete = delete
        self._update = update
        self._inspect = inspect
        self._health = health
        self._keepers = keepers
        self._repeats = repeats
        self._fork = fork
        self._restore = restore

    async def CreateVm(self, request: vm_pb2.CreateVmRequest, context: Context) -> vm_pb2.CreateVmResponse:
        while isinstance(begun := await self._create(request, context), Operation):
            ended = await self._repeats.ended(begun)
            if ended.state is OperationState.SUCCEEDED:
                return vm_pb2.CreateVmResponse(vm=convert.vm(await self._vms.get(ended.target_id)))
        return vm_pb2.CreateVmResponse(vm=convert.vm(await begun.result()))

    async def BeginCreateVm(
        self, request: vm_pb2.BeginCreateVmRequest, context: Context
    ) -> vm_pb2.BeginCreateVmResponse:
        begun = await self._create(request, context)
        operation = begun if isinstance(begun, Operation) else begun.operation
        return vm_pb2.BeginCreateVmResponse(operation_id=operation.id)

    async def GetVm(self, request: vm_pb2.GetVmRequest, context: Context) -> vm_pb2.GetVmResponse:
        return vm_pb2.GetVmResponse(vm=self._told(await self._vms.find(who.reference(context, request.vm))))

    async def ListVms(self, request: vm_pb2.ListVmsRequest, context: Context) -> vm_pb2.ListVmsResponse:
        found = await self._vms.of(who.caller(context), all_users=request.all_users)
        vms, token = page(filter(convert.vm_filter(request).takes, found), by_time, request, self._told)
        return vm_pb2.ListVmsResponse(vms=vms, next_page_token=token)

    async def UpdateVm(self, request: vm_pb2.UpdateVmRequest, context: Context) -> vm_pb2.UpdateVmResponse:
        if request.HasField("timeout") and not request.restart:
            raise InvalidArgument("timeout: it goes with restart", field="timeout")
        running = await self._update.update(
            current_operation.get(),
            who.reference(context, request.vm),
            convert.vm_change(request),
            _timeout(request) if request.restart else None,
        )
        return vm_pb2.UpdateVmResponse(vm=convert.vm(await running.result()))

    async def StartVm(self, request: vm_pb2.StartVmRequest, context: Context) -> vm_pb2.StartVmResponse:
        running = await self._start.start(current_operation.get(), who.reference(context, request.vm))
        return vm_pb2.StartVmResponse(vm=convert.vm(await running.result()))

    async def StopVm(self, request: vm_pb2.StopVmRequest, context: Context) -> vm_pb2.StopVmResponse:
        running = await self._stop.stop(current_operation.get(), who.reference(context, request.vm), _timeout(request))
        return vm_pb2.StopVmResponse(vm=convert.vm(await running.result()))

    async def RestartVm(self, request: vm_pb2.RestartVmRequest, context: Context) -> vm_pb2.RestartVmResponse:
        running = await self._between_boots.restart(
            current_operation.get(), who.reference(context, request.vm), _timeout(request)
        )
        return vm_pb2.RestartVmResponse(vm=convert.vm(await running.result()))

    async def KillVm(self, request: vm_pb2.KillVmRequest, context: Context) -> vm_pb2.KillVmResponse:
        if request.signal not in _SIGNALS:
            raise InvalidArgument(f"signal {request.signal}: HUP, INT, KILL or TERM is allowed", field="signal")
        running = await self._stop.kill(
            current_operation.get(), who.reference(context, request.vm), _SIGNALS[request.signal]
        )
        return vm_pb2.KillVmResponse(vm=convert.vm(await running.result()))

    async def PauseVm(self, request: vm_pb2.PauseVmRequest, context: Context) -> vm_pb2.PauseVmResponse:
        running = await self._sleep.pause(current_operation.get(), who.reference(context, request.vm))
        return vm_pb2.PauseVmResponse(vm=convert.vm(await running.result()))

    async def ResumeVm(self, request: vm_pb2.ResumeVmRequest, context: Context) -> vm_pb2.ResumeVmResponse:
        running = await self._wake.resume(current_operation.get(), who.reference(context, request.vm))
        return vm_pb2.ResumeVmResponse(vm=convert.vm(await running.result()))

    async def HibernateVm(self, request: vm_pb2.HibernateVmRequest, context: Context) -> vm_pb2.HibernateVmResponse:
        running = await self._sleep.hibernate(current_operation.get(), who.reference(context, request.vm))
        return vm_pb2.HibernateVmResponse(vm=convert.vm(await running.result()))

    async def WakeVm(self, request: vm_pb2.WakeVmRequest, context: Context) -> vm_pb2.WakeVmResponse:
        running = await self._wake.wake(current_operation.get(), who.reference(context, request.vm))
        return vm_pb2.WakeVmResponse(vm=convert.vm(await running.result()))

    async def DeleteVm(self, request: vm_pb2.DeleteVmRequest, context: Context) -> vm_pb2.DeleteVmResponse:
        running = await self._delete.delete(
            current_operation.get(), who.reference(context, request.vm), force=request.force
        )
        await running.result()
        return vm_pb2.DeleteVmResponse()

    async def ForkVm(self, request: vm_pb2.ForkVmRequest, context: Context) -> vm_pb2.ForkVmResponse:
        forked = await (await self._begin_fork(request, context)).ongoing.result()
        answer = vm_pb2.ForkVmResponse(vms=map(convert.vm, forked.vms))
        if forked.pause_seconds is not None:
            answer.pause.CopyFrom(convert.duration(forked.pause_seconds))
        return answer

    async def BeginForkVm(self, request: vm_pb2.BeginForkVmRequest, context: Context) -> vm_pb2.BeginForkVmResponse:
        begun = await self._begin_fork(request, context)
        return vm_pb2.BeginForkVmResponse(operation_id=begun.ongoing.operation.id, vm_ids=begun.vm_ids)

    async def RestoreVm(self, request: vm_pb2.RestoreVmRequest, context: Context) -> vm_pb2.RestoreVmResponse:
        running = await self._restore.restore(
            current_operation.get(),
            who.reference(context, request.vm),
            who.reference(context, request.snapshot),
            cold=request.cold,
        )
        return vm_pb2.RestoreVmResponse(vm=convert.vm(await running.result()))

    async def GetVmHealth(self, request: vm_pb2.GetVmHealthRequest, context: Context) -> vm_pb2.GetVmHealthResponse:
        patience = PATIENCE_SECONDS
        if request.HasField("patience"):
            patience = convert.seconds_of(request.patience, "patience")
        return convert.health(await self._inspect.health(who.reference(context, request.vm), patience))

    async def PingVm(self, request: vm_pb2.PingVmRequest, context: Context) -> vm_pb2.PingVmResponse:
        seconds, info = await self._inspect.ping(who.reference(context, request.vm))
        return vm_pb2.PingVmResponse(round_trip=convert.duration(seconds), agent_version=info.agent_version)

    async def GetVmStats(self, request: vm_pb2.GetVmStatsRequest, context: Context) -> vm_pb2.GetVmStatsResponse:
        return convert.stats(await self._inspect.stats(who.reference(context, request.vm)))

    async def StreamVmLogs(
        self, request: vm_pb2.StreamVmLogsRequest, context: Context
    ) -> AsyncIterator[vm_pb2.StreamVmLogsResponse]:
        if request.source not in vm_pb2.LogSource.values():
            raise InvalidArgument(f"source {request.source}: CONSOLE or VMM is allowed", field="source")
        vmm = request.source == vm_pb2.LOG_SOURCE_VMM
        async for said in self._inspect.logs(who.reference(context, request.vm), convert.log_wish(request), vmm=vmm):
            yield convert.said(said)

    def _told(self, vm: Vm) -> vm_pb2.Vm:
        message = convert.vm(vm)
        message.problem = self._inspect.stalled(vm)
        if (health := self._health.of(vm)) is not None:
            message.health.CopyFrom(convert.vm_health(health))
        return message

    async def _begin_fork(self, request: vm_pb2.ForkVmRequest | vm_pb2.BeginForkVmRequest, context: Context) -> Forking:
        if bool(request.vm) == bool(request.snapshot):
            raise InvalidArgument("fork: name a VM or a snapshot, and one of them", "ingle vm fork VM", field="vm")
        wish = ForkWish(request.count if request.HasField("count") else 1, request.name, request.cold)
        op_id = current_operation.get()
        if request.snapshot:
            return await self._fork.of_snapshot(op_id, who.reference(context, request.snapshot), wish)
        return await self._fork.of_vm(op_id, who.reference(context, request.vm), wish)

    async def _create(
        self, request: vm_pb2.CreateVmRequest | vm_pb2.BeginCreateVmRequest, context: Context
    ) -> Ongoing[Vm] | Operation:
        """The create that begins, or an earlier one of the same request."""
        if not request.request_id:
            return await self._begin(request, context)
        key = RequestKey(who.caller(context).uid, request.request_id)
        asked = Asked(_digest(request), current_operation.get())
        return await self._repeats.once(key, asked, lambda: self._begin(request, context))

    async def _begin(
        self, request: vm_pb2.CreateVmRequest | vm_pb2.BeginCreateVmRequest, context: Context
    ) -> Ongoing[Vm]:
        keeper = _keeper(context) if request.ephemeral else None
        spec, logins = convert.vm_spec(request.spec), convert.logins(request.logins)
        op_id, caller = current_operation.get(), who.caller(context)
        running = await self._start.create(
            op_id, caller, spec, start=not request.no_start, keeper=keeper, logins=logins
        )
        if keeper is not None:
            self._keepers.watch(running, keeper)
        return running


def _digest(request: vm_pb2.CreateVmRequest | vm_pb2.BeginCreateVmRequest) -> bytes:
    """Of what it asks for, however it is asked."""
    wish = vm_pb2.CreateVmRequest(spec=request.spec, no_start=request.no_start, ephemeral=request.ephemeral)
    return hashlib.sha256(wish.SerializeToString(deterministic=True)).digest()


def _keeper(context: Context) -> Keeper:
    pid = who.process(context)
    if pid == 0:
        raise InvalidArgument(
            "ephemeral: the server can't see the process that calls (is it in a container?)", field="ephemeral"
        )
    return Keeper(pid, start_time_of(pid) or 0)  # one that is gone by now is no other process's start time


def _timeout(request: vm_pb2.StopVmRequest | vm_pb2.RestartVmRequest | vm_pb2.UpdateVmRequest) -> float:
    if not request.HasField("timeout"):
        return _STOP_SECONDS
    return convert.seconds_of(request.timeout, "timeout", _LONGEST_STOP_SECONDS)

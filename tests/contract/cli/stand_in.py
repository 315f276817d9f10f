"""A server for the command line to talk to: real gRPC on a real socket, with guests that are this host's processes.

What the command line does is under test here; what a VM does is tested elsewhere.
"""

# ruff: noqa: N802 - methods are named by the contract

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress

import grpc

from contract.cli.stand_in_items import ImageService, KernelService, SnapshotService
from contract.cli.world import ACTIVITY, OP_ID, Context, World, refuse
from ingle.v1 import (
    guest_pb2,
    guest_pb2_grpc,
    image_pb2_grpc,
    kernel_pb2_grpc,
    operation_pb2,
    operation_pb2_grpc,
    protocol_pb2,
    snapshot_pb2_grpc,
    system_pb2,
    system_pb2_grpc,
    vm_pb2,
    vm_pb2_grpc,
)


class VmService(vm_pb2_grpc.VmServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world
        self.stopping = 0
        self.seconds = 0
        self.all_stopping = asyncio.Event()

    async def ListVms(self, request: vm_pb2.ListVmsRequest, context: Context) -> vm_pb2.ListVmsResponse:
        self.world.versions |= {
            str(value) for key, value in context.invocation_metadata() or () if key == "ingle-api-version"
        }
        found = [
            vm
            for vm in self.world.vms.values()
            if (not request.states or vm.state in request.states)
            and all(label in {*vm.labels, *(f"{k}={v}" for k, v in vm.labels.items())} for label in request.labels)
        ]
        return vm_pb2.ListVmsResponse(vms=found)

    async def GetVm(self, request: vm_pb2.GetVmRequest, context: Context) -> vm_pb2.GetVmResponse:
        self.world.looked_up.append(request.vm)
        begins = [vm for vm in self.world.vms.values() if vm.id.startswith(request.vm)]
        return vm_pb2.GetVmResponse(vm=begins[0] if len(begins) == 1 else await self.world.find(request.vm, context))

    async def BeginCreateVm(
        self, request: vm_pb2.BeginCreateVmRequest, context: Context
    ) -> vm_pb2.BeginCreateVmResponse:
        self.world.created.append(request.spec)
        self.world.ephemeral.append(request.ephemeral)
        return vm_pb2.BeginCreateVmResponse(operation_id=OP_ID)

    async def UpdateVm(self, request: vm_pb2.UpdateVmRequest, context: Context) -> vm_pb2.UpdateVmResponse:
        vm = await self.world.find(request.vm, context)
        self.world.updates.append(request)
        if request.spec.memory_bytes > self.world.most_memory:
            await refuse(context, "INVALID_ARGUMENT", "memory: this host has less")
        idle = vm.state in {vm_pb2.VM_STATE_STOPPED, vm_pb2.VM_STATE_ERROR}
        needs_stopped = {"vcpus", "memory_bytes", "disk_bytes"} & {*request.update_mask.paths}
        if needs_stopped and not idle and not request.restart:
            await refuse(context, "WRONG_STATE", f"VM {vm.name!r} is running", f"ingle vm stop {vm.name}")
        if self.world.hold_updates:
            await asyncio.Event().wait()
        for path in request.update_mask.paths:
            vm.ClearField(path)  # type: ignore[arg-type]
            vm.MergeFrom(vm_pb2.Vm(**{path: getattr(request.spec, path)}))
        return vm_pb2.UpdateVmResponse(vm=vm)

    async def StartVm(self, request: vm_pb2.StartVmRequest, context: Context) -> vm_pb2.StartVmResponse:
        vm = await self.world.find(request.vm, context)
        if vm.state == vm_pb2.VM_STATE_RUNNING:
            await refuse(context, "WRONG_STATE", f"VM {vm.name!r} is running", f"ingle vm stop {vm.name}")
        vm.state = vm_pb2.VM_STATE_RUNNING
        self.world.changes.append(("start", vm.name))
        return vm_pb2.StartVmResponse(vm=vm)

    async def StopVm(self, request: vm_pb2.StopVmRequest, context: Context) -> vm_pb2.StopVmResponse:
        vm = await self.world.find(request.vm, context)
        self.stopping += 1
        if self.stopping == self.world.stops_together:
            self.all_stopping.set()
        async with asyncio.timeout(10):
            await self.all_stopping.wait()
        vm.state = vm_pb2.VM_STATE_STOPPED
        self.world.changes.append(("stop", vm.name))
        return vm_pb2.StopVmResponse(vm=vm)

    async def RestartVm(self, request: vm_pb2.RestartVmRequest, context: Context) -> vm_pb2.RestartVmResponse:
        """Never done."""
        self.world.changes.append(("restart", request.vm))
        await asyncio.Event().wait()
        raise AssertionError

    async def KillVm(self, request: vm_pb2.KillVmRequest, context: Context) -> vm_pb2.KillVmResponse:
        vm = await self.world.find(request.vm, context)
        self.world.changes.append((f"kill {request.signal}", vm.name))
        return vm_pb2.KillVmResponse(vm=vm)

    async def DeleteVm(self, request: vm_pb2.DeleteVmRequest, context: Context) -> vm_pb2.DeleteVmResponse:
        vm = await self.world.find(request.vm, context)
        if vm.state == vm_pb2.VM_STATE_RUNNING and not request.force:
            await refuse(context, "WRONG_STATE", f"VM {vm.name!r} is running", f"ingle vm delete -f {vm.name}")
        del self.world.vms[vm.id]
        self.world.changes.append(("delete", vm.name))
        return vm_pb2.DeleteVmResponse()

    async def GetVmHealth(self, request: vm_pb2.GetVmHealthRequest, context: Context) -> vm_pb2.GetVmHealthResponse:
        vm = await self.world.find(request.vm, context)
        alive = vm.state == vm_pb2.VM_STATE_RUNNING
        answers = alive and not self.world.hung
        activity = ACTIVITY if answers else None
        problem = f"nothing within {request.patience.ToSeconds() or 5} s" if self.world.hung else self.world.problem
        return vm_pb2.GetVmHealthResponse(
            state=vm.state,
            vmm_alive=alive,
            agent_answers=answers,
            problem=problem,
            activity=activity,
            disk_changes=self.world.disk_changes if alive else None,
        )

    async def GetVmStats(self, request: vm_pb2.GetVmStatsRequest, context: Context) -> vm_pb2.GetVmStatsResponse:
        vm = await self.world.find(request.vm, context)
        if vm.state != vm_pb2.VM_STATE_RUNNING:
            await refuse(context, "WRONG_STATE", f"VM {vm.name!r} is not running", f"ingle vm start {vm.name}")
        # Each answer is a second later than the one before: two processors, each busy half of it.
        self.seconds += 1
        answer = vm_pb2.GetVmStatsResponse(activity=ACTIVITY, disk_changes=self.world.disk_changes)
        answer.vmm.cpu_time.FromMilliseconds(1500)
        answer.guest.memory_total_bytes = 1 << 40
        answer.guest.cpus = 2
        answer.guest.cpu_total.FromSeconds(2 * self.seconds)
        answer.guest.cpu_idle.FromSeconds(self.seconds)
        answer.guest.interfaces.add(name="lo", received_bytes=1 << 40, sent_bytes=1 << 40)
        answer.guest.interfaces.add(name="eth0", received_bytes=2 << 20, sent_bytes=1 << 10)
        return answer

    async def StreamVmLogs(
        self, request: vm_pb2.StreamVmLogsRequest, context: Context
    ) -> AsyncIterator[vm_pb2.StreamVmLogsResponse]:
        await self.world.find(request.vm, context)
        tail = request.tail_lines if request.HasField("tail_lines") else 1_000_000
        for number in range(min(tail, 1_000_000)):
            response = vm_pb2.StreamVmLogsResponse(data=b"line %d \xff\n" % number)
            response.time.seconds = number
            yield response
        if request.follow:
            await asyncio.Event().wait()  # a console that says nothing more


class OperationService(operation_pb2_grpc.OperationServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world
        self.end = asyncio.Event()

    async def WatchOperation(
        self, request: operation_pb2.WatchOperationRequest, context: Context
    ) -> AsyncIterator[operation_pb2.WatchOperationResponse]:
        operation = operation_pb2.Operation(
            id=OP_ID, kind=operation_pb2.OPERATION_KIND_CREATE_VM, state=operation_pb2.OPERATION_STATE_RUNNING
        )
        try:
            for name, text in (("disk", "Making the root disk"), ("boot", "Booting the kernel")):
                if operation.stages:
                    operation.stages[-1].finished_at.FromMilliseconds(1_700_000_000_250)
                operation.stages.add(name=name, text=text).started_at.FromSeconds(1_700_000_000)
                yield operation_pb2.WatchOperationResponse(operation=operation)
            if self.world.hold_creates:
                if self.world.held_fraction is not None:
                    operation.stages[-1].fraction = self.world.held_fraction
                    yield operation_pb2.WatchOperationResponse(operation=operation)
                await self.end.wait()
        except asyncio.CancelledError:
            if request.cancel_on_disconnect:
                self.world.cancelled.append("by leaving")
            raise
        operation.stages[-1].finished_at.FromMilliseconds(1_700_000_001_500)
        if self.world.create_error is not None:
            operation.state = operation_pb2.OPERATION_STATE_FAILED
            operation.error.CopyFrom(self.world.create_error)
        else:
            operation.state = operation_pb2.OPERATION_STATE_SUCCEEDED
            vm = self.world.add_vm(self.world.created[-1].name or "made-up")
            vm.acceleration = self.world.created[-1].acceleration or vm_pb2.ACCELERATION_AUTO
            vm.running_acceleration = self.world.running_acceleration
            operation.target_id = vm.id
        yield operation_pb2.WatchOperationResponse(operation=operation)

    async def ListOperations(
        self, request: operation_pb2.ListOperationsRequest, context: Context
    ) -> operation_pb2.ListOperationsResponse:
        return operation_pb2.ListOperationsResponse(operations=self.world.operations)

    async def GetOperation(
        self, request: operation_pb2.GetOperationRequest, context: Context
    ) -> operation_pb2.GetOperationResponse:
        return operation_pb2.GetOperationResponse(operation=self.world.operations[0])

    async def CancelOperation(
        self, request: operation_pb2.CancelOperationRequest, context: Context
    ) -> operation_pb2.CancelOperationResponse:
        self.world.cancelled.append("by asking")
        operation = operation_pb2.Operation(id=OP_ID, state=operation_pb2.OPERATION_STATE_CANCELLED)
        operation.error.message = "cancelled"
        return operation_pb2.CancelOperationResponse(operation=operation)


class GuestService(guest_pb2_grpc.GuestServiceServicer):
    """Runs the command here, as a guest would: in a session of its own, killed when the caller leaves."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def ListDirectory(
        self, request: guest_pb2.ListDirectoryRequest, context: Context
    ) -> guest_pb2.ListDirectoryResponse:
        names = ("my file*.txt", "plain")
        return guest_pb2.ListDirectoryResponse(
            entries=[guest_pb2.FileInfo(name=name, type=guest_pb2.FILE_TYPE_REGULAR) for name in names]
        )

    async def ListPorts(self, request: guest_pb2.ListPortsRequest, context: Context) -> guest_pb2.ListPortsResponse:
        ports = ((protocol_pb2.PROTOCOL_TCP, 80), (protocol_pb2.PROTOCOL_UDP, 53))
        return guest_pb2.ListPortsResponse(
            ports=[guest_pb2.ListeningPort(protocol=protocol, port=port) for protocol, port in ports]
        )

    async def ReadFile(
        self, request: guest_pb2.ReadFileRequest, context: Context
    ) -> AsyncIterator[guest_pb2.ReadFileResponse]:
        yield guest_pb2.ReadFileResponse(data=b"root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/:/bin/false\n")

    async def AttachSession(
        self, requests: AsyncIterator[guest_pb2.AttachSessionRequest], context: Context
    ) -> AsyncIterator[guest_pb2.AttachSessionResponse]:
        """A session whose program shows its arguments and ends."""
        start = (await anext(requests)).start
        await self.world.find(start.vm, context)
        self.world.attached.append(start)
        yield guest_pb2.AttachSessionResponse(attached=guest_pb2.Session(id="s1"))
        yield guest_pb2.AttachSessionResponse(output=f"{list(start.create.argv)}".encode())
        yield guest_pb2.AttachSessionResponse(exited=guest_pb2.ExecExited(exit_code=7))

    async def Exec(
        self, requests: AsyncIterator[guest_pb2.ExecRequest], context: Context
    ) -> AsyncIterator[guest_pb2.ExecResponse]:
        start = (await anext(requests)).start
        vm = await self.world.find(start.vm, context)
        self.world.execs.append(start)
        if self.world.hold_execs:
            await asyncio.Event().wait()
        try:
            process = await asyncio.create_subprocess_exec(
                *start.argv,
                stdin=asyncio.subprocess.PIPE if start.open_stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, **start.env},
                cwd=start.working_directory or "/",
            )
        except FileNotFoundError:
            await refuse(context, "COMMAND_NOT_FOUND", f"{start.argv[0]}: not found in the guest")
        except PermissionError:
            await refuse(context, "COMMAND_NOT_EXECUTABLE", f"{start.argv[0]}: can't be executed")
        self.world.processes.append(process.pid)
        if start.detach:
            context.set_trailing_metadata((("ingle-op-id", OP_ID),))
            yield guest_pb2.ExecResponse(started=guest_pb2.ExecStarted(pid=process.pid))
            return
        outputs: asyncio.Queue[guest_pb2.ExecResponse | None] = asyncio.Queue(1)
        tasks = [
            asyncio.create_task(_feed(process, requests)),
            asyncio.create_task(_read(process.stdout, "stdout_data", outputs)),
            asyncio.create_task(_read(process.stderr, "stderr_data", outputs)),
        ]
        try:
            yield guest_pb2.ExecResponse(started=guest_pb2.ExecStarted(pid=process.pid))
            limit = start.timeout.ToTimedelta().total_seconds() if start.HasField("timeout") else None
            timed_out = False
            try:
                async with asyncio.timeout(limit):
                    async for response in _until_done(outputs, open_streams=2):
                        yield response
                    await process.wait()
            except TimeoutError:
                timed_out = True
                os.killpg(process.pid, signal.SIGKILL)
            code = await process.wait()
            yield guest_pb2.ExecResponse(
                exited=guest_pb2.ExecExited(exit_code=code if code >= 0 else 128 - code, timed_out=timed_out)
            )
        finally:
            for task in tasks:
                task.cancel()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.gather(*tasks, return_exceptions=True)
            await process.communicate()
            if start.delete_vm:
                self.world.deleted_after_exec.append(vm.name)


async def _feed(process: asyncio.subprocess.Process, requests: AsyncIterator[guest_pb2.ExecRequest]) -> None:
    async for request in requests:
        match request.WhichOneof("message"):
            case "stdin_data":
                assert process.stdin is not None
                with suppress(ConnectionError):
                    process.stdin.write(request.stdin_data)
                    await process.stdin.drain()
            case "stdin_eof":
                assert process.stdin is not None
                process.stdin.close()
            case "signal":
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, request.signal.signal)


async def _read(
    stream: asyncio.StreamReader | None, kind: str, outputs: "asyncio.Queue[guest_pb2.ExecResponse | None]"
) -> None:
    assert stream is not None
    while data := await stream.read(1 << 16):
        response = guest_pb2.ExecResponse()
        setattr(response, kind, data)
        await outputs.put(response)
    await outputs.put(None)


async def _until_done(
    outputs: "asyncio.Queue[guest_pb2.ExecResponse | None]", open_streams: int
) -> AsyncIterator[guest_pb2.ExecResponse]:
    while open_streams:
        response = await outputs.get()
        if response is None:
            open_streams -= 1
        else:
            yield response


class SystemService(system_pb2_grpc.SystemServiceServicer):
    async def Ping(self, request: system_pb2.PingRequest, context: Context) -> system_pb2.PingResponse:
        return system_pb2.PingResponse(version="9.9", api_version=1)


def new_server(world: World, address: str) -> grpc.aio.Server:
    server = grpc.aio.server()
    server.add_insecure_port(address)
    vm_pb2_grpc.add_VmServiceServicer_to_server(VmService(world), server)  # type: ignore[abstract] # what these tests call
    operation_pb2_grpc.add_OperationServiceServicer_to_server(OperationService(world), server)
    guest_pb2_grpc.add_GuestServiceServicer_to_server(GuestService(world), server)  # type: ignore[abstract] # what these tests call
    image_pb2_grpc.add_ImageServiceServicer_to_server(ImageService(), server)  # type: ignore[abstract] # what these tests call
    kernel_pb2_grpc.add_KernelServiceServicer_to_server(KernelService(), server)  # type: ignore[abstract] # what these tests call
    snapshot_pb2_grpc.add_SnapshotServiceServicer_to_server(SnapshotService(), server)  # type: ignore[abstract] # what these tests call
    system_pb2_grpc.add_SystemServiceServicer_to_server(SystemService(), server)  # type: ignore[abstract]
    return server

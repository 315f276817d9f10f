"""The composition root: adapters plugged into ports, operations over ports, servicers over operations."""

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import grpc

from ingle.api_server import doctor
from ingle.api_server.assembly import (
    catalogs,
    changes_of,
    disk_usage_of,
    sleep_of,
    snapshot_transfer_of,
    snapshots_of,
    start_pipelines,
    wake_of,
    warm_starts_of,
)
from ingle.api_server.config import Config, Paths, host_limits
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.caller import Caller
from ingle.api_server.model.check import Check
from ingle.api_server.operations.activation import Activation
from ingle.api_server.operations.auto_start import AutoStart
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.disk_room import DiskRoom
from ingle.api_server.operations.disk_usage import Places
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.fork_vm import ForkVm
from ingle.api_server.operations.idle_vms import IdleVms
from ingle.api_server.operations.inspect_vm import InspectVm
from ingle.api_server.operations.keep_time import KeepTime
from ingle.api_server.operations.keepers import Keepers
from ingle.api_server.operations.placement import Placement
from ingle.api_server.operations.recover import Recovery
from ingle.api_server.operations.repeats import Repeats
from ingle.api_server.operations.resolve import Resolve
from ingle.api_server.operations.restore_vm import RestoreVm
from ingle.api_server.operations.runner import Operations
from ingle.api_server.operations.save_image import SaveImage
from ingle.api_server.operations.start_vm import StartVm
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.operations.warm_starts import WarmStarts
from ingle.api_server.operations.watch_events import WatchEvents, server_started
from ingle.api_server.operations.watch_health import WatchHealth
from ingle.api_server.plugged import MakeEngines, open_ports
from ingle.api_server.rpc.event import EventServicer
from ingle.api_server.rpc.guest import GuestServicer
from ingle.api_server.rpc.image import ImageServicer
from ingle.api_server.rpc.kernel import KernelServicer
from ingle.api_server.rpc.operation import OperationServicer
from ingle.api_server.rpc.snapshot import SnapshotServicer
from ingle.api_server.rpc.standard import Health, add_health, add_reflection
from ingle.api_server.rpc.system import ServerFacts, SystemServicer
from ingle.api_server.rpc.vm import VmServicer
from ingle.api_server.settings import LiveSettings
from ingle.api_server.steps.begin_restored import BeginRestored
from ingle.api_server.steps.delete import Delete
from ingle.api_server.steps.new_disk import NewDisk
from ingle.api_server.steps.reboot import Reboot
from ingle.api_server.steps.release import Release
from ingle.api_server.steps.swap_disk import SwapDisk
from ingle.v1 import (
    event_pb2,
    event_pb2_grpc,
    guest_pb2,
    guest_pb2_grpc,
    image_pb2,
    image_pb2_grpc,
    kernel_pb2,
    kernel_pb2_grpc,
    operation_pb2,
    operation_pb2_grpc,
    snapshot_pb2,
    snapshot_pb2_grpc,
    system_pb2,
    system_pb2_grpc,
    vm_pb2,
    vm_pb2_grpc,
)
from ingle.version import VERSION

log = logging.getLogger(__name__)

SERVICES = tuple(
    service.full_name
    for file in (system_pb2, operation_pb2, vm_pb2, guest_pb2, image_pb2, kernel_pb2, snapshot_pb2, event_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)


@dataclass(frozen=True, slots=True)
class Application:
    """A whole server but for its sockets."""

    operations: Operations
    fleet: Fleet
    recovery: Recovery
    keepers: Keepers
    warm_starts: WarmStarts
    idle: IdleVms
    auto_start: AutoStart
    activation: Activation
    register: Callable[[grpc.aio.Server], Health]


@asynccontextmanager
async def application(
    config: Config, stop: Callable[[], None], make_engines: MakeEngines
) -> AsyncIterator[Application]:
    """Wire everything up. `stop` is what a Shutdown call triggers. VMs live on when the context is left."""
    paths, limits, tools = config.paths, host_limits(), Tools(config.paths.state)
    settings = LiveSettings(config, os.environ)
    async with open_ports(config, tools, settings.quota, make_engines) as ports:
        placement = Placement(ports.engines, ports.backends, ports.network, paths.images, paths.vms)
        release = Release(ports.files, ports.network, ports.backends)
        fleet = Fleet(ports.vms, ports.journal, ports.files, release)
        guests = UseGuest(ports.vms, fleet, ports.dialler)
        operations = Operations(ports.operations, ports.clock)
        images, kernels = catalogs(ports, tools, config, settings.defaults)
        pipelines = start_pipelines(ports, placement)
        delete_step = Delete(ports.vms, ports.files, ports.vmms, ports.network, ports.backends)
        room = DiskRoom(ports.vms, ports.files, ports.backends, ports.disks, paths.vms, settings.defaults)
        wake = wake_of(ports, operations, fleet, room, pipelines)
        guests.waken = wake.waken
        sleep = sleep_of(ports, operations, fleet, room, guests, release)
        snapshots = snapshots_of(ports, operations, fleet, guests, wake, kernels, room)
        resolve = Resolve(placement, images, kernels, limits, settings.defaults)
        warm_starts = warm_starts_of(ports, operations, placement, resolve, room, limits)
        start = StartVm(
            operations=operations,
            vms=ports.vms,
            journal=ports.journal,
            clock=ports.clock,
            fleet=fleet,
            files=ports.files,
            engines=ports.engines,
            resolve=resolve,
            images=images,
            kernels=kernels,
            pipelines=pipelines,
            room=room,
            warm_starts=warm_starts,
            wake=wake,
        )
        fleet.boot_again = start.boot_again
        health = WatchHealth(ports.vms, guests, ports.events, ports.clock)
        fleet.watches = (KeepTime(ports.vms, guests, ports.clock).keep, health.keep)
        delete = DeleteVm(operations, ports.vms, ports.journal, fleet, ports.files, delete_step)
        delete.vm_gone = snapshots.drop_unused
        idle = IdleVms(ports.vms, fleet, guests, sleep, delete, ports.clock, health.cpu_seconds)
        keepers = Keepers(ports.vms, ports.processes, delete)
        stop_vm, between_boots, update = changes_of(ports, operations, fleet, release, guests, start, room, limits)
        fork = ForkVm(
            operations=operations,
            vms=ports.vms,
            store=ports.snapshots,
            snapshots=snapshots,
            journal=ports.journal,
            clock=ports.clock,
            fleet=fleet,
            files=ports.files,
            engines=ports.engines,
            images=images,
            kernels=kernels,
            pipelines=pipelines,
            delete=delete_step,
            room=room,
        )
        restore = RestoreVm(
            operations=operations,
            vms=ports.vms,
            store=ports.snapshots,
            snapshots=snapshots,
            journal=ports.journal,
            fleet=fleet,
            files=ports.files,
            memories=ports.memories,
            images=ports.image_library,
            start=start,
            steps=(
                NewDisk(ports.files, ports.backends),
                SwapDisk(ports.vms, ports.snapshots, ports.files, stop_vm.end_now),
                BeginRestored(),
            ),
        )
        recovery = Recovery(
            vms=ports.vms,
            images=ports.images,
            kernels=ports.kernels,
            operations=ports.operations,
            journal=ports.journal,
            clock=ports.clock,
            fleet=fleet,
            files=ports.files,
            memories=ports.memories,
            pristine_files=ports.pristine_files,
            engines=ports.engines,
            vmms=ports.vmms,
            network=ports.network,
            names=ports.names,
            backends=ports.backends,
            release=release,
            image_library=ports.image_library,
            kernel_library=ports.kernel_library,
            snapshots=ports.snapshots,
            snapshot_files=ports.snapshot_files,
            steps=(
                *pipelines.all,
                *warm_starts.steps,
                *update.steps,
                *sleep.steps,
                *snapshots.steps,
                *restore.steps,
                delete_step,
                Reboot(fleet.rebooted),
            ),
        )
        inspect = InspectVm(ports.vms, fleet, guests, ports.files, ports.backends, ports.clock)

        async def examine(caller: Caller) -> list[Check]:
            found = await doctor.vm_checks(caller, ports.vms, placement, inspect, room, settings.quota(caller.uid))
            return [*await doctor.examine(config, caller), *found]

        system = SystemServicer(
            ServerFacts(
                ports.clock.now(), paths.state, paths.runtime, paths.cache, limits, config.system, paths.socket
            ),
            ports.engines,
            stop,
            examine,
            settings,
            ports.vms,
            disk_usage_of(ports, images, kernels, _places(paths), warm_starts),
        )
        vm = VmServicer(
            ports.vms,
            start,
            stop_vm,
            between_boots,
            sleep,
            wake,
            delete,
            update,
            inspect,
            health,
            keepers,
            Repeats(operations, ports.requests),
            fork,
            restore,
        )

        operation = OperationServicer(operations, ports.vms, images, kernels, ports.snapshots)

        def register(server: grpc.aio.Server) -> Health:
            for add in (
                partial(system_pb2_grpc.add_SystemServiceServicer_to_server, system),
                partial(operation_pb2_grpc.add_OperationServiceServicer_to_server, operation),
                partial(vm_pb2_grpc.add_VmServiceServicer_to_server, vm),
                partial(guest_pb2_grpc.add_GuestServiceServicer_to_server, GuestServicer(guests, delete)),
                partial(
                    image_pb2_grpc.add_ImageServiceServicer_to_server,
                    ImageServicer(
                        operations,
                        images,
                        SaveImage(operations, ports.vms, snapshots, images, ports.backends),
                        warm_starts,
                    ),
                ),
                partial(kernel_pb2_grpc.add_KernelServiceServicer_to_server, KernelServicer(operations, kernels)),
                partial(
                    snapshot_pb2_grpc.add_SnapshotServiceServicer_to_server,
                    SnapshotServicer(
                        ports.snapshots,
                        snapshots,
                        snapshot_transfer_of(ports, operations, snapshots, images, kernels, limits, room),
                    ),
                ),
                partial(
                    event_pb2_grpc.add_EventServiceServicer_to_server,
                    EventServicer(WatchEvents(ports.events, ports.clock)),
                ),
            ):
                add(server)
            add_reflection(SERVICES, server)
            return add_health(SERVICES, server)

        if why := await server_started(ports.events, VERSION, os.getpid()):
            log.warning("that this server has begun is no event: %s", why)
        try:
            yield Application(
                operations,
                fleet,
                recovery,
                keepers,
                warm_starts,
                idle,
                AutoStart(ports.vms, fleet, start),
                Activation(ports.vms, fleet, ports.activation, wake, ports.clock, (ports.names, ports.network)),
                register,
            )
        finally:
            await keepers.close()
            await warm_starts.close()
            await operations.close()
            await fleet.close()


def _places(paths: Paths) -> Places:
    database = (*(paths.database.with_name(f"{paths.database.name}{end}") for end in ("", "-wal", "-shm")),)
    return Places(
        state=paths.state,
        cache=paths.cache,
        warm=paths.warm,
        layers=paths.layers,
        images=paths.images,
        kernels=paths.kernels,
        snapshots=paths.snapshots,
        vms=paths.vms,
        database=(*database, paths.state / "reserve"),
        server_logs=(paths.state / "server.log", paths.state / "server.log.1"),
    )

"""The composition root: adapters plugged into ports, operations over ports, servicers over operations."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc

from ingle.api_server import doctor
from ingle.api_server.adapters.boot import Initramfs
from ingle.api_server.adapters.disk import CopyDisk, Qcow2Disk, ReflinkDisk, SnapshotDisk
from ingle.api_server.adapters.dns import LOOPBACK, AbsentNames, DnsServer, Host
from ingle.api_server.adapters.files import LocalVmFiles
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.helper import AbsentDevices, AbsentNetwork, HelperDevices, HelperNetwork
from ingle.api_server.adapters.kernel import Kernels as KernelFiles
from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.processes import HostProcesses
from ingle.api_server.adapters.qemu import QemuEngine
from ingle.api_server.adapters.rootfs import RootFileSystems
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.agents import agent_binary
from ingle.api_server.config import Config, host_limits
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.check import Check
from ingle.api_server.model.errors import HostProblem, IngleError
from ingle.api_server.model.vm import Vm
from ingle.api_server.operations.catalog import Images, Kernels
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.inspect_vm import InspectVm
from ingle.api_server.operations.owners import Owners
from ingle.api_server.operations.recover import Recovery
from ingle.api_server.operations.runner import Operations
from ingle.api_server.operations.start_vm import StartPipelines, StartVm
from ingle.api_server.operations.stop_vm import StopVm
from ingle.api_server.operations.update_vm import UpdateVm
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.names import NameService
from ingle.api_server.ports.store import Store
from ingle.api_server.rpc.guest import GuestServicer
from ingle.api_server.rpc.image import ImageServicer
from ingle.api_server.rpc.kernel import KernelServicer
from ingle.api_server.rpc.operation import OperationServicer
from ingle.api_server.rpc.standard import Health, add_health, add_reflection
from ingle.api_server.rpc.system import ServerFacts, SystemServicer
from ingle.api_server.rpc.vm import VmServicer
from ingle.api_server.settings import LiveSettings
from ingle.api_server.steps.delete import Delete
from ingle.api_server.steps.reboot import Reboot
from ingle.api_server.steps.release import Release
from ingle.v1 import (
    guest_pb2,
    guest_pb2_grpc,
    image_pb2,
    image_pb2_grpc,
    kernel_pb2,
    kernel_pb2_grpc,
    operation_pb2,
    operation_pb2_grpc,
    system_pb2,
    system_pb2_grpc,
    vm_pb2,
    vm_pb2_grpc,
)

log = logging.getLogger(__name__)

SERVICES = tuple(
    service.full_name
    for file in (system_pb2, operation_pb2, vm_pb2, guest_pb2, image_pb2, kernel_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)


@dataclass(frozen=True, slots=True)
class Application:
    """A whole server but for its sockets."""

    operations: Operations
    fleet: Fleet
    recovery: Recovery
    owners: Owners
    register: Callable[[grpc.aio.Server], Health]


@asynccontextmanager
async def application(config: Config, stop: Callable[[], None]) -> AsyncIterator[Application]:
    """Wire everything up. `stop` is what a Shutdown call triggers. VMs live on when the context is left."""
    paths, limits = config.paths, host_limits()
    settings = LiveSettings(config, os.environ)
    tools = Tools(paths.state)
    image_library = DirectoryLibrary(paths.images, tools)
    kernel_library = DirectoryLibrary(paths.kernels, tools)
    media = Initramfs(kernel_library, agent_binary(), paths.cache / "initramfs")
    engine = QemuEngine(tools, kernel_library, media, paths.acceleration_verdicts)
    files = LocalVmFiles(paths.vms, paths.runtime / "vms")
    dialler = Dialler()
    network = AbsentNetwork() if config.helper is None else HelperNetwork(config.helper)
    backends = disk_backends(config, tools)
    async with SqliteStore(paths.database) as store, _names(config, store) as names:
        release = Release(files, network, backends)
        fleet = Fleet(store, files, dialler, release)
        operations = Operations(store)
        images = Images(store, image_library, RootFileSystems(tools))
        kernels = Kernels(store, kernel_library, KernelFiles(tools))
        pipelines = StartPipelines.of(
            store, files, engine, media, network, names, dialler, image_library, kernel_library, backends
        )
        delete_step = Delete(store, files, engine, network, backends)
        start = StartVm(
            operations=operations,
            store=store,
            fleet=fleet,
            files=files,
            engine=engine,
            network=network,
            images=images,
            kernels=kernels,
            backends=backends,
            image_directory=paths.images,
            vm_directory=paths.vms,
            pipelines=pipelines,
            limits=limits,
            defaults=settings.defaults,
        )
        fleet.boot_again = start.boot_again
        delete = DeleteVm(operations, store, fleet, files, delete_step)
        owners = Owners(store, HostProcesses(), delete)
        recovery = Recovery(
            store=store,
            fleet=fleet,
            files=files,
            engine=engine,
            network=network,
            names=names,
            backends=backends,
            release=release,
            images=image_library,
            kernels=kernel_library,
            steps=(*pipelines.all, delete_step, Reboot(fleet.rebooted)),
        )
        facts = ServerFacts(
            datetime.now(UTC), paths.state, paths.runtime, paths.cache, limits, config.system, paths.socket
        )
        inspect = InspectVm(store, fleet, files, backends)

        async def examine() -> list[Check]:
            return [*await doctor.examine(config), await _found_by(inspect)]

        system = SystemServicer(facts, (engine,), stop, examine, settings)
        vm = VmServicer(
            store,
            start,
            StopVm(operations, store, fleet, release, dialler, start),
            delete,
            UpdateVm(operations, store, fleet, files, backends, network, limits),
            inspect,
            owners,
        )

        def register(server: grpc.aio.Server) -> Health:
            system_pb2_grpc.add_SystemServiceServicer_to_server(system, server)
            operation_pb2_grpc.add_OperationServiceServicer_to_server(OperationServicer(operations), server)
            vm_pb2_grpc.add_VmServiceServicer_to_server(vm, server)
            guest_pb2_grpc.add_GuestServiceServicer_to_server(GuestServicer(store, fleet, delete), server)
            image_pb2_grpc.add_ImageServiceServicer_to_server(ImageServicer(operations, store, images), server)
            kernel_pb2_grpc.add_KernelServiceServicer_to_server(KernelServicer(operations, store, kernels), server)
            add_reflection(SERVICES, server)
            return add_health(SERVICES, server)

        try:
            yield Application(operations, fleet, recovery, owners, register)
        finally:
            await owners.close()
            await operations.close()
            await fleet.close()
            network.close()


async def _found_by(inspect: InspectVm) -> Check:
    """What is wrong with the database must not hide what else there is; the doctor tells that, too."""
    try:
        return await inspect.check()
    except IngleError as error:
        return Check("vms", "fail", error.message, error.remedy)


def disk_backends(config: Config, tools: Tools) -> Mapping[str, DiskBackend]:
    """In the order of preference. The system's server takes what any VMM opens without a format of its own."""
    devices = AbsentDevices() if config.device_helper is None else HelperDevices(config.device_helper)
    qcow2, reflink, snapshot, copy = Qcow2Disk(tools), ReflinkDisk(), SnapshotDisk(devices), CopyDisk()
    disks: tuple[DiskBackend, ...] = (reflink, snapshot, qcow2, copy)
    if not config.system:
        disks = (qcow2, reflink, snapshot, copy)
    return {disk.name: disk for disk in disks}


@asynccontextmanager
async def _names(config: Config, store: Store) -> AsyncIterator[NameService]:
    """DNS for the VMs of shared networks, and for the host at its loopback."""
    if not config.system:
        yield AbsentNames()
        return
    server = DnsServer(config.defaults.domain)

    def look(vm_id: str) -> None:
        if not vm_id:
            return
        try:
            (found, *_) = (*store.connected_vms(vm_id), None)
            server.tell(vm_id, _host(found))
        except Exception:  # what was done to the VM is done, whether its name is told or not
            log.exception("names of VMs may be other than they should")

    for vm in store.connected_vms():
        look(vm.id)
    store.watch = look
    server.start()
    try:
        try:
            await server.serve(LOOPBACK)
        except HostProblem as error:  # VMs have their own; the host does without
            log.error("no DNS for the host: %s", error.message)
        yield server
    finally:
        await server.close()


def _host(vm: Vm | None) -> Host | None:
    return (
        None
        if vm is None or vm.running is None
        else Host(vm.name, vm.network, vm.running.address, vm.nat, vm.running.address6)
    )

"""Every port, with the adapter that this host and its configuration have for it."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from ingle.api_server.adapters.activation import LocalActivationSockets
from ingle.api_server.adapters.boot import Initramfs
from ingle.api_server.adapters.clock import HostClock
from ingle.api_server.adapters.disk import CopyDisk, Qcow2Disk, ReflinkDisk, SnapshotDisk
from ingle.api_server.adapters.disk_survey import HostDiskSurvey
from ingle.api_server.adapters.dns import LOOPBACK, AbsentNames, DnsServer, Host
from ingle.api_server.adapters.firecracker import FirecrackerEngine
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.helper import AbsentDevices, AbsentNetwork, HelperDevices, HelperNetwork
from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.memories import LocalMemories
from ingle.api_server.adapters.processes import HostProcesses
from ingle.api_server.adapters.qemu import QemuEngine
from ingle.api_server.adapters.snapshot_archives import LocalSnapshotArchives
from ingle.api_server.adapters.snapshot_files import LocalSnapshotFiles
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.adapters.vm_files import LocalVmFiles
from ingle.api_server.adapters.vmm import Cage, FoundVmms
from ingle.api_server.adapters.warm import DirectoryWarmCache
from ingle.api_server.config import Config
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.caller import ROOT
from ingle.api_server.model.errors import HostProblem
from ingle.api_server.model.quota import Quota
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.collection import Ports
from ingle.api_server.ports.disk import BootMedia, DiskBackend
from ingle.api_server.ports.engine import Engine
from ingle.api_server.ports.names import NameService
from ingle.api_server.ports.sources import Library
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.programs import agent_binary

log = logging.getLogger(__name__)

MakeEngines = Callable[[Config, Tools, Library, BootMedia], Mapping[str, Engine]]
"""As vmm_engines."""


@asynccontextmanager
async def open_ports(
    config: Config, tools: Tools, quota_of: Callable[[int], Quota], make_engines: MakeEngines
) -> AsyncIterator[Ports]:
    """What has to be closed is, when the context is left; VMMs live on."""
    paths = config.paths
    image_library, kernel_library = DirectoryLibrary(paths.images, tools), DirectoryLibrary(paths.kernels, tools)
    media = Initramfs(kernel_library, agent_binary(), paths.cache / "initramfs")
    warm = DirectoryWarmCache(paths.warm)
    network = AbsentNetwork() if config.helper is None else HelperNetwork(config.helper)
    activation = LocalActivationSockets()
    heir = ROOT if config.system else os.getuid()
    async with (
        SqliteStore(paths.database, heir, quota_of) as store,
        _names(config, store.vms) as names,
        Dialler() as dialler,
    ):
        try:
            yield Ports(
                vms=store.vms,
                images=store.images,
                kernels=store.kernels,
                snapshots=store.snapshots,
                operations=store.operations,
                journal=store.journal,
                requests=store.requests,
                events=store.events,
                clock=HostClock(),
                processes=HostProcesses(),
                files=LocalVmFiles(paths.vms, paths.runtime / "vms"),
                snapshot_files=LocalSnapshotFiles(paths.snapshots),
                snapshot_archives=LocalSnapshotArchives(paths.snapshots),
                memories=LocalMemories(),
                disks=HostDiskSurvey(),
                image_library=image_library,
                kernel_library=kernel_library,
                media=media,
                engines=make_engines(config, tools, kernel_library, media),
                vmms=FoundVmms(),
                backends=disk_backends(config, tools),
                network=network,
                names=names,
                activation=activation,
                dialler=dialler,
                warm=warm,
                pristine_files=LocalVmFiles(warm.work, paths.runtime / "pristine"),
            )
        finally:
            activation.close_all()
            network.close()


def vmm_engines(config: Config, tools: Tools, kernels: Library, media: BootMedia) -> Mapping[str, Engine]:
    """In the order of preference."""
    verdicts = config.paths.acceleration_verdicts
    cage = Cage(tools, wanted=config.defaults.isolate)
    engines: tuple[Engine, ...] = (
        FirecrackerEngine(config.defaults.firecracker, tools, kernels, media, verdicts, cage),
        QemuEngine(tools, kernels, media, verdicts, cage),
    )
    return {engine.info.name: engine for engine in engines}


def disk_backends(config: Config, tools: Tools) -> Mapping[str, DiskBackend]:
    """In the order of preference. The system's server takes what any VMM opens without a format of its own."""
    devices = AbsentDevices() if config.device_helper is None else HelperDevices(config.device_helper)
    qcow2, reflink, snapshot, copy = Qcow2Disk(tools), ReflinkDisk(), SnapshotDisk(devices), CopyDisk()
    disks: tuple[DiskBackend, ...] = (reflink, snapshot, qcow2, copy)
    if not config.system:
        disks = (qcow2, reflink, snapshot, copy)
    return {disk.name: disk for disk in disks}


@asynccontextmanager
async def _names(config: Config, vms: VmStore) -> AsyncIterator[NameService]:
    """DNS for the VMs of shared networks, and for the host at its loopback."""
    if not config.system:
        yield AbsentNames()
        return
    server = DnsServer(config.defaults.domain)

    def look(vm_id: str) -> None:
        if not vm_id:
            return
        try:
            (found, *_) = (*vms.connected(vm_id), None)
            server.tell(vm_id, _host(found))
        except Exception:  # what was done to the VM is done, whether its name is told or not
            log.exception("names of VMs may be other than they should")

    for vm in vms.connected():
        look(vm.id)
    vms.watchers.append(look)
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
    if vm is None:
        return None
    sleeper = vm.id if vm.asleep_since is not None and vm.settings.wake_by_name else ""
    return Host(vm.name, vm.settings.network, vm.address, vm.settings.nat, vm.address6, vm.owner, sleeper)

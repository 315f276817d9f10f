"""Parts of the application that are put together of many ports, for the composition root."""

from collections.abc import Callable

from ingle.api_server.adapters.kernel import KernelMaker
from ingle.api_server.adapters.rootfs import DirectoryLayerCache, Registries, RootFileSystems
from ingle.api_server.config import Config
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.spec import Defaults, HostLimits
from ingle.api_server.operations.between_boots import BetweenBoots
from ingle.api_server.operations.catalog import Kernels
from ingle.api_server.operations.disk_room import DiskRoom
from ingle.api_server.operations.disk_usage import DiskUsage, Places
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.images import Images
from ingle.api_server.operations.placement import Placement
from ingle.api_server.operations.resolve import Resolve
from ingle.api_server.operations.runner import Operations
from ingle.api_server.operations.sleep_vm import SleepPipelines, SleepVm
from ingle.api_server.operations.snapshot_chains import SnapshotChains
from ingle.api_server.operations.snapshot_transfer import SnapshotTransfer
from ingle.api_server.operations.snapshots import Snapshots
from ingle.api_server.operations.start_vm import StartPipelines, StartVm
from ingle.api_server.operations.stop_vm import StopVm
from ingle.api_server.operations.update_vm import UpdateVm
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.operations.wake_vm import WakeVm
from ingle.api_server.operations.warm_starts import WarmStarts
from ingle.api_server.ports.collection import Ports
from ingle.api_server.steps.attach_disk import DiskBases
from ingle.api_server.steps.flatten_snapshot import FlattenSnapshot
from ingle.api_server.steps.pristine import pristine_steps
from ingle.api_server.steps.publish_snapshot import PublishSnapshot
from ingle.api_server.steps.release import Release
from ingle.api_server.steps.reserve_snapshot import ReserveSnapshot
from ingle.api_server.steps.resume import Resume
from ingle.api_server.steps.save_guest import SaveGuest
from ingle.api_server.steps.share_memory import ShareMemory
from ingle.api_server.steps.snapshot_directory import SnapshotDirectory
from ingle.api_server.steps.thin_snapshot import ThinSnapshot
from ingle.api_server.steps.unpack_snapshot import UnpackSnapshot


def catalogs(ports: Ports, tools: Tools, config: Config, settings: Callable[[], Defaults]) -> tuple[Images, Kernels]:
    """What VMs are made of."""
    source = RootFileSystems(tools, Registries(tools, config.paths.layers, config.mirrors))
    return (
        Images(
            ports.images,
            ports.image_library,
            source,
            ports.clock,
            lambda: settings().image,
            DirectoryLayerCache(config.paths.layers),
            lambda: settings().layer_cache_bytes,
        ),
        Kernels(ports.kernels, ports.kernel_library, KernelMaker(tools), ports.clock, lambda: settings().kernel),
    )


def disk_usage_of(ports: Ports, images: Images, kernels: Kernels, places: Places, warm_starts: WarmStarts) -> DiskUsage:
    """What all that is kept takes."""
    return DiskUsage(
        ports.vms, ports.snapshots, images, kernels, ports.files, ports.backends, ports.disks, places, warm_starts
    )


def start_pipelines(ports: Ports, placement: Placement) -> StartPipelines:
    """What a start consists of."""
    return StartPipelines.of(
        ports.vms,
        ports.files,
        ports.engines,
        placement,
        ports.vmms,
        ports.media,
        ports.network,
        ports.names,
        ports.dialler,
        ports.image_library,
        ports.kernel_library,
        ports.backends,
        disk_bases(ports),
        ports.clock,
        ports.memories,
        ports.warm,
        ports.activation,
    )


def disk_bases(ports: Ports) -> DiskBases:
    """What disks rest on."""
    return DiskBases(ports.image_library, ports.snapshots, ports.snapshot_files)


def sleep_of(
    ports: Ports, operations: Operations, fleet: Fleet, room: DiskRoom, guests: UseGuest, release: Release
) -> SleepVm:
    """What puts VMs to sleep."""
    pipelines = SleepPipelines.of(
        ports.vms,
        ports.kernels,
        ports.engines,
        ports.memories,
        ports.vmms,
        ports.network,
        ports.dialler,
        release,
        ports.activation,
    )
    return SleepVm(operations, ports.vms, ports.journal, fleet, ports.files, room, guests, ports.engines, pipelines)


def wake_of(ports: Ports, operations: Operations, fleet: Fleet, room: DiskRoom, pipelines: StartPipelines) -> WakeVm:
    """What wakes VMs."""
    return WakeVm(
        operations,
        ports.vms,
        ports.images,
        ports.kernels,
        ports.journal,
        fleet,
        ports.files,
        ports.memories,
        ports.engines,
        room,
        ports.activation,
        Resume(ports.vms, ports.network, ports.dialler, ports.clock),
        pipelines.wake,
    )


def changes_of(
    ports: Ports,
    operations: Operations,
    fleet: Fleet,
    release: Release,
    guests: UseGuest,
    start: StartVm,
    room: DiskRoom,
    limits: HostLimits,
) -> tuple[StopVm, BetweenBoots, UpdateVm]:
    """What ends VMs, what has them end and begin again, and what changes them."""
    stop = StopVm(operations, ports.vms, fleet, release, ports.dialler, ports.files, ports.memories)
    between_boots = BetweenBoots(operations, ports.vms, fleet, stop, start)
    update = UpdateVm(
        operations,
        ports.vms,
        ports.kernels,
        ports.journal,
        fleet,
        guests,
        ports.files,
        ports.backends,
        ports.network,
        limits,
        room,
        between_boots,
    )
    return stop, between_boots, update


def snapshots_of(
    ports: Ports,
    operations: Operations,
    fleet: Fleet,
    guests: UseGuest,
    wake: WakeVm,
    kernels: Kernels,
    room: DiskRoom,
) -> Snapshots:
    """VMs as they were."""
    chains = SnapshotChains(ports.snapshots)
    make = (
        ReserveSnapshot(ports.snapshots),
        SnapshotDirectory(ports.snapshot_files),
        SaveGuest(
            ports.vms,
            ports.snapshots,
            fleet,
            ports.dialler,
            ports.files,
            ports.snapshot_files,
            ports.engines,
            ports.backends,
            ports.image_library,
            ports.clock,
            guests.closed,
        ),
        ShareMemory(ports.engines, ports.snapshot_files),
        ThinSnapshot(ports.snapshot_files, ports.backends, ports.image_library, chains.steady),
        PublishSnapshot(ports.snapshot_files, ports.snapshots),
    )
    return Snapshots(
        operations=operations,
        vms=ports.vms,
        snapshots=ports.snapshots,
        journal=ports.journal,
        clock=ports.clock,
        fleet=fleet,
        files=ports.files,
        snapshot_files=ports.snapshot_files,
        engines=ports.engines,
        backends=ports.backends,
        kernels=kernels,
        room=room,
        chains=chains,
        make=make,
        flatten=FlattenSnapshot(ports.snapshot_files, ports.snapshots, ports.backends, ports.image_library),
        waken=wake.waken,
    )


def snapshot_transfer_of(
    ports: Ports,
    operations: Operations,
    snapshots: Snapshots,
    images: Images,
    kernels: Kernels,
    limits: HostLimits,
    room: DiskRoom,
) -> SnapshotTransfer:
    """Snapshots on their way from host to host."""
    return SnapshotTransfer(
        operations=operations,
        store=ports.snapshots,
        snapshots=snapshots,
        archives=ports.snapshot_archives,
        journal=ports.journal,
        engines=ports.engines,
        backends=ports.backends,
        images=images,
        kernels=kernels,
        limits=limits,
        room=room,
        steps=(
            ReserveSnapshot(ports.snapshots),
            SnapshotDirectory(ports.snapshot_files),
            UnpackSnapshot(ports.snapshot_archives, ports.snapshot_files, ports.backends, ports.image_library),
            PublishSnapshot(ports.snapshot_files, ports.snapshots),
        ),
    )


def warm_starts_of(
    ports: Ports,
    operations: Operations,
    placement: Placement,
    resolve: Resolve,
    room: DiskRoom,
    limits: HostLimits,
) -> WarmStarts:
    """What new VMs begin with. It goes with what it was made of."""
    steps = pristine_steps(
        ports.warm,
        ports.pristine_files,
        ports.vms,
        ports.engines,
        ports.vmms,
        ports.media,
        ports.dialler,
        ports.image_library,
        ports.kernel_library,
        ports.backends,
        ports.network,
        disk_bases(ports),
        ports.clock,
    )
    warm_starts = WarmStarts(
        operations=operations,
        vms=ports.vms,
        images=ports.images,
        kernels=ports.kernels,
        journal=ports.journal,
        clock=ports.clock,
        engines=ports.engines,
        backends=ports.backends,
        media=ports.media,
        placement=placement,
        resolve=resolve,
        cache=ports.warm,
        files=ports.pristine_files,
        steps=steps,
        room=room,
        limits=limits,
    )
    resolve.images.deleted = resolve.kernels.deleted = warm_starts.forget
    return warm_starts

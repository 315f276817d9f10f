"""All ports of a server, for who plugs things together; everybody else takes the ones that it needs."""

from collections.abc import Mapping
from dataclasses import dataclass

from ingle.api_server.model.vm import Image, Kernel
from ingle.api_server.ports.activation import ActivationSockets
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.disk import BootMedia, DiskBackend
from ingle.api_server.ports.disk_survey import DiskSurvey
from ingle.api_server.ports.engine import Engine, Vmms
from ingle.api_server.ports.guest import GuestDialler
from ingle.api_server.ports.memories import Memories
from ingle.api_server.ports.names import NameService
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.processes import Processes
from ingle.api_server.ports.snapshot_archives import SnapshotArchives
from ingle.api_server.ports.snapshot_files import SnapshotFiles
from ingle.api_server.ports.sources import Library
from ingle.api_server.ports.store.events import EventStore
from ingle.api_server.ports.store.items import ItemStore
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.operations import OperationStore
from ingle.api_server.ports.store.requests import RequestStore
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.ports.warm import WarmCache


@dataclass(frozen=True, slots=True)
class Ports:
    """What a server has of the world. `engines` and `backends`: the better ones first."""

    vms: VmStore
    images: ItemStore[Image]
    kernels: ItemStore[Kernel]
    snapshots: SnapshotStore
    operations: OperationStore
    journal: Journal
    requests: RequestStore
    events: EventStore
    clock: Clock
    processes: Processes
    files: VmFiles
    snapshot_files: SnapshotFiles
    snapshot_archives: SnapshotArchives
    memories: Memories
    disks: DiskSurvey
    image_library: Library
    kernel_library: Library
    media: BootMedia
    engines: Mapping[str, Engine]
    vmms: Vmms
    backends: Mapping[str, DiskBackend]
    network: HostNetwork
    names: NameService
    activation: ActivationSockets
    dialler: GuestDialler
    warm: WarmCache
    pristine_files: VmFiles
    """Of guests that are made for `warm`."""

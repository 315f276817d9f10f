"""Snapshots that leave this host as one file, and that come from others."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from ingle.api_server import pipeline
from ingle.api_server.model.caller import Caller, Reference
from ingle.api_server.model.errors import HostProblem, NotFound, Reason
from ingle.api_server.model.healthcheck import settled
from ingle.api_server.model.ids import new_vm_id, new_vm_name
from ingle.api_server.model.labels import check_labels
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.snapshot import Snapshot, check_snapshot_name
from ingle.api_server.model.spec import HostLimits, VmSpec
from ingle.api_server.model.vm import Vm
from ingle.api_server.model.workload import Workload
from ingle.api_server.operations.catalog import Kernels
from ingle.api_server.operations.disk_room import DiskRoom
from ingle.api_server.operations.images import Images
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.operations.snapshots import Snapshots
from ingle.api_server.pipeline import Step
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.engine import Engine, engine_of
from ingle.api_server.ports.snapshot_archives import SnapshotArchives
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.steps.unpack_snapshot import Importing


class SnapshotTransfer:
    """What is exported was verified; of what is imported nothing is there before all of it was."""

    def __init__(
        self,
        *,
        operations: Operations,
        store: SnapshotStore,
        snapshots: Snapshots,
        archives: SnapshotArchives,
        journal: Journal,
        engines: Mapping[str, Engine],
        backends: Mapping[str, DiskBackend],
        images: Images,
        kernels: Kernels,
        limits: HostLimits,
        room: DiskRoom,
        steps: Sequence[Step[Importing]],
    ) -> None:
        self._operations = operations
        self._store = store
        self._snapshots = snapshots
        self._archives = archives
        self._journal = journal
        self._engines = engines
        self._backends = backends
        self._images = images
        self._kernels = kernels
        self._limits = limits
        self._room = room
        self.steps = steps

    @asynccontextmanager
    async def exported(self, reference: Reference) -> AsyncIterator[AsyncIterator[bytes]]:
        """The archive of a snapshot, in pieces. Raises BadFile(SNAPSHOT_INVALID), HostProblem(DISK_FULL), Conflict."""
        snapshot = await self._store.exact(reference)
        snapshot.check_ready()
        with self._snapshots.kept(snapshot.id):
            whole = await self._snapshots.whole(snapshot)
            chain = await self._store.chain(snapshot.id)
            self._room.check_snapshot(2 * sum(each.size_bytes for each in chain))
            backend = self._backends[snapshot.settings.disk_backend]
            async with self._archives.scratch(f"{snapshot.id}-{new_vm_id()}") as scratch:
                await backend.to_raw(backend.disk_path(whole.disk), self._archives.raw_disk(scratch))
                memory = whole.memory if snapshot.memory else None
                yield self._archives.pack(snapshot, await self._store.token(snapshot.id), memory, scratch)

    async def import_(self, op_id: str, caller: Caller, name: str, upload: AsyncIterator[bytes]) -> Ongoing[Snapshot]:
        """Begin to take one that is sent. `name`: empty, the one that it has, or one that is made up."""
        if name:
            check_snapshot_name(name)
        snapshot_id = new_vm_id()

        async def work(progress: Progress) -> Snapshot:
            async with self._archives.scratch(snapshot_id) as scratch:
                progress.stage("receive-snapshot", "receiving the snapshot")
                archived = await self._archives.receive(upload, scratch)
                snapshot = replace(
                    archived.snapshot,
                    id=snapshot_id,
                    owner=caller.uid,
                    name=name or archived.snapshot.name or new_vm_name(),
                )
                vm = await self._checked(snapshot)
                snapshot = await self._as_its_image_says(snapshot)
                kernel = await self._kernels.get(vm.settings.kernel_id)
                size = vm.settings.disk_bytes + (vm.settings.memory_bytes if snapshot.memory else 0)
                target = Importing(
                    op_id, snapshot.id, replace(snapshot, size_bytes=size), vm, kernel, archived.token, scratch=scratch
                )
                await pipeline.run(self.steps, target, self._journal, progress.stage)
                return target.snapshot

        return await self._operations.begin(op_id, caller.uid, OperationKind.IMPORT_SNAPSHOT, work, snapshot_id)

    async def _as_its_image_says(self, snapshot: Snapshot) -> Snapshot:
        """What an image says of how it is to be run comes from the one that is here, not from who sends a snapshot."""
        config = (await self._images.get(snapshot.settings.image_id)).config
        return replace(
            snapshot,
            settings=replace(
                snapshot.settings,
                workload=Workload.of(config),
                healthcheck=settled(None, None if config is None else config.healthcheck),
            ),
        )

    async def _checked(self, snapshot: Snapshot) -> Vm:
        """A VM that it could be of. Raises InvalidArgument, NotFound, HostProblem for what is of no use here."""
        settings = snapshot.settings
        check_snapshot_name(snapshot.name)
        check_labels(snapshot.labels)
        VmSpec(
            name=snapshot.vm_name,
            vcpus=settings.vcpus,
            memory_bytes=settings.memory_bytes,
            disk_bytes=settings.disk_bytes,
            env=settings.env,
            network=settings.network,
            nat=settings.nat,
            ssh_keys=settings.ssh_keys,
            disk_backend=settings.disk_backend,
        ).check(self._limits)
        for what, noun, items in (
            (settings.image_id, f"image {settings.image_name}", self._images),
            (settings.kernel_id, f"kernel {settings.kernel_name}", self._kernels),
        ):
            try:
                await items.get(what)
            except NotFound as error:
                raise NotFound(
                    error.reason, f"the snapshot rests on {noun} with id {what[:12]}, which is not here", error.remedy
                ) from None
        if settings.engine not in self._engines or settings.disk_backend not in self._backends:
            raise HostProblem(
                Reason.SNAPSHOT_INCOMPATIBLE,
                f"the snapshot is of engine {settings.engine!r:.40} with disks of {settings.disk_backend!r:.40}, "
                "which this ingle does not have",
            )
        vm = self._snapshots.like(snapshot)
        if snapshot.memory:
            kernel = await self._kernels.get(settings.kernel_id)
            engine = engine_of(vm, self._engines)
            disk = f"take one of its disk there, and export that: ingle snapshot create --disk {snapshot.vm_name}"
            snapshot.check_memory(await engine.memory_key(vm, kernel, snapshot.acceleration), disk)
        return vm

"""Create and start: the pipeline this product exists for."""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ingle.api_server import pipeline
from ingle.api_server.model.errors import Conflict, HostProblem, NotFound, Reason
from ingle.api_server.model.ids import new_op_id, new_vm_id, new_vm_name
from ingle.api_server.model.network import DEFAULT_NETWORK, USER_NETWORK
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.spec import (
    Defaults,
    HostLimits,
    VmSpec,
    check_disk_holds,
    check_memory_holds,
    whole_sectors,
)
from ingle.api_server.model.vm import Acceleration, Image, Kernel, Owner, Vm, VmState, check_move
from ingle.api_server.operations.catalog import Images, Kernels
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.runner import Operations, Progress, Running
from ingle.api_server.pipeline import Step
from ingle.api_server.ports.disk import BootMedia, DiskBackend
from ingle.api_server.ports.engine import Engine
from ingle.api_server.ports.files import VmFiles
from ingle.api_server.ports.guest import GuestDialler
from ingle.api_server.ports.names import NameService
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.sources import Library
from ingle.api_server.ports.store import Store
from ingle.api_server.steps.acceleration import ChooseAcceleration
from ingle.api_server.steps.attach_disk import AttachDisk
from ingle.api_server.steps.boot import Boot
from ingle.api_server.steps.configure_guest import ConfigureGuest
from ingle.api_server.steps.connect import Connect
from ingle.api_server.steps.initramfs import WriteInitramfs
from ingle.api_server.steps.launch import Launch
from ingle.api_server.steps.mark_starting import MarkStarting
from ingle.api_server.steps.reboot import Reboot
from ingle.api_server.steps.record_running import RecordRunning
from ingle.api_server.steps.record_stopped import RecordStopped
from ingle.api_server.steps.reserve import Reserve
from ingle.api_server.steps.root_disk import RootDisk
from ingle.api_server.steps.runtime_directory import RuntimeDirectory
from ingle.api_server.steps.state_directory import StateDirectory
from ingle.api_server.steps.target import Start
from ingle.api_server.steps.wait_for_agent import WaitForAgent

_SHOWN_ID = 12


@dataclass(frozen=True, slots=True)
class StartPipelines:
    """The steps, in order. A start undoes to a stopped VM, a create to nothing at all."""

    make: Sequence[Step[Start]]
    start: Sequence[Step[Start]]
    leave_stopped: Sequence[Step[Start]]

    @staticmethod
    def of(
        store: Store,
        files: VmFiles,
        engine: Engine,
        media: BootMedia,
        network: HostNetwork,
        names: NameService,
        dialler: GuestDialler,
        images: Library,
        kernels: Library,
        backends: Mapping[str, DiskBackend],
    ) -> "StartPipelines":
        """Over these ports."""
        return StartPipelines(
            make=(Reserve(store), StateDirectory(files), RootDisk(backends, images)),
            start=(
                MarkStarting(store),
                ChooseAcceleration(engine),
                RuntimeDirectory(files),
                Connect(network, names, store),
                AttachDisk(backends, store),
                WriteInitramfs(media, engine),
                Launch(engine, kernels),
                Boot(),
                WaitForAgent(dialler, files),
                ConfigureGuest(dialler),
                RecordRunning(store),
            ),
            leave_stopped=(RecordStopped(store),),
        )

    @property
    def all(self) -> tuple[Step[Start], ...]:
        """Every step there is, for recovery to find by name."""
        return (*self.make, *self.start, *self.leave_stopped)


class StartVm:
    """Creates and starts VMs."""

    def __init__(
        self,
        *,
        operations: Operations,
        store: Store,
        fleet: Fleet,
        files: VmFiles,
        engine: Engine,
        network: HostNetwork,
        images: Images,
        kernels: Kernels,
        backends: Mapping[str, DiskBackend],
        image_directory: Path,
        vm_directory: Path,
        pipelines: StartPipelines,
        limits: HostLimits,
        defaults: Callable[[], Defaults],
    ) -> None:
        self._operations = operations
        self._store = store
        self._fleet = fleet
        self._files = files
        self._engine = engine
        self._network = network
        self._images = images
        self._kernels = kernels
        self._backends = backends
        self._image_directory = image_directory
        self._vm_directory = vm_directory
        self._pipelines = pipelines
        self._limits = limits
        self._defaults = defaults

    async def create(self, op_id: str, spec: VmSpec, *, start: bool, owner: Owner | None = None) -> Running[Vm]:
        """Begin to create a VM; it lives for `owner` if there is one. Everything that can be refused is refused here,
        before anything changes."""
        spec = spec.with_defaults(self._defaults())
        spec = replace(spec, network=await self._choose_network(spec.network)).checked(self._limits)
        backend = await self._choose_backend(spec.disk_backend)
        image = await self._images.present(spec.image)
        kernel = await self._kernels.present(spec.kernel)
        if image is not None:
            check_disk_holds(spec.disk_bytes or 0, image)
        if kernel is not None:
            check_memory_holds(spec.memory_bytes or 0, kernel)
        await self._check_name_free(spec.name)
        vm_id = new_vm_id()
        self._engine.check(self._files.paths(vm_id), spec.ports if start else ())

        async def work(progress: Progress) -> Vm:
            have_image = image or await self._images.pull(spec.image, progress)
            have_kernel = kernel or await self._kernels.pull(spec.kernel, progress)
            check_disk_holds(spec.disk_bytes or 0, have_image)
            check_memory_holds(spec.memory_bytes or 0, have_kernel)
            vm = self._vm(vm_id, spec, backend, have_image, have_kernel)
            steps = (*self._pipelines.make, *(self._pipelines.start if start else self._pipelines.leave_stopped))
            target = self._target(progress, vm, have_image, have_kernel)
            target.owner = owner
            target.created = True
            async with self._fleet.lock(vm.id):
                return await self._run(steps, target, progress)

        return await self._operations.begin(op_id, OperationKind.CREATE_VM, work, vm_id)

    async def start(self, op_id: str, reference: str) -> Running[Vm]:
        """Begin to start a stopped VM. A VM that runs is left alone: the end is what was asked for."""
        vm = await self._store.vm(reference)
        return await self._operations.begin(
            op_id, OperationKind.START_VM, lambda progress: self.start_now(vm.id, progress), vm.id
        )

    async def boot_again(self, vm_id: str) -> Running[Vm]:
        """Begin to start a VM that has just rebooted, which nobody called for: so the VM itself tells of a failure."""

        async def work(progress: Progress) -> Vm:
            async with self._fleet.lock(vm_id):
                if not self._fleet.boots_again(vm_id):
                    return await self._store.vm(vm_id)
                self._fleet.stays_stopped(vm_id)
                try:
                    return await self._start(vm_id, progress, Reboot(self._fleet.rebooted))
                except (Exception, asyncio.CancelledError) as error:
                    cause = pipeline.root_cause(error)
                    told = "that was cancelled" if isinstance(cause, asyncio.CancelledError) else str(cause)
                    why = f"its guest rebooted, and it could not be started again: {told}"
                    await pipeline.uninterrupted(self._store.move_vm(vm_id, VmState.ERROR, error=why))
                    raise

        return await self._operations.begin(new_op_id(), OperationKind.RESTART_VM, work, vm_id)

    async def start_now(self, vm_id: str, progress: Progress) -> Vm:
        """The same as part of another operation."""
        async with self._fleet.lock(vm_id):
            return await self._start(vm_id, progress)

    async def _start(self, vm_id: str, progress: Progress, *before: Step[Start]) -> Vm:
        """The caller holds the VM's lock."""
        vm = await self._store.vm(vm_id)
        if vm.state is VmState.RUNNING:
            return vm
        # Refused before the pipeline: its undo would say "stopped" of a VM that it never got hold of.
        check_move(vm.name, vm.state, VmState.STARTING)
        self._engine.check(self._files.paths(vm_id), vm.ports)
        image = await self._store.image(vm.image_id)
        kernel = await self._store.kernel(vm.kernel_id)
        check_memory_holds(vm.memory_bytes, kernel, f"ingle vm set {vm.name} --memory")
        target = self._target(progress, vm, image, kernel)
        return await self._run((*before, *self._pipelines.start), target, progress)

    def _target(self, progress: Progress, vm: Vm, image: Image, kernel: Kernel) -> Start:
        return Start(
            op_id=progress.operation.id,
            vm_id=vm.id,
            paths=self._files.paths(vm.id),
            vm=vm,
            image=image,
            kernel=kernel,
            token=secrets.token_bytes(32),  # a new one at each boot: one that leaked opens no other
        )

    async def _run(self, steps: Sequence[Step[Start]], target: Start, progress: Progress) -> Vm:
        """The caller holds the VM's lock."""
        await pipeline.run(steps, target, self._store, progress.stage)
        if target.vmm is not None:
            self._fleet.attach(target.vm, target.vmm)
        return target.vm

    def _vm(self, vm_id: str, spec: VmSpec, backend: str, image: Image, kernel: Kernel) -> Vm:
        assert spec.vcpus is not None
        assert spec.memory_bytes is not None
        assert spec.disk_bytes is not None
        return Vm(
            id=vm_id,
            name=spec.name or new_vm_name(),
            state=VmState.CREATING,
            image_id=image.id,
            image_name=_name(spec.image, image),
            kernel_id=kernel.id,
            kernel_name=_name(spec.kernel, kernel),
            engine=self._engine.name,
            acceleration=spec.acceleration or Acceleration.AUTO,
            disk_backend=backend,
            vcpus=spec.vcpus,
            memory_bytes=spec.memory_bytes,
            disk_bytes=whole_sectors(spec.disk_bytes),
            created_at=datetime.now(UTC),
            env=dict(spec.env),
            init=spec.init,
            ssh_keys=spec.ssh_keys,
            ports=spec.ports,
            network=spec.network,
            nat=spec.network == USER_NETWORK if spec.nat is None else spec.nat,
        )

    async def _choose_backend(self, wish: str) -> str:
        problems: list[str] = []
        for backend in self._backends.values():
            if wish and backend.name != wish:
                continue
            problem = await backend.usable(self._image_directory, self._vm_directory)
            if not problem:
                return backend.name
            problems.append(f"{backend.name}: {problem}")
        if wish:
            raise HostProblem(
                Reason.DEPENDENCY_MISSING,
                f"disk backend {'; '.join(problems)}",
                "leave --disk-backend, or disk_backend in the configuration, out: then the best that works is taken",
            )
        raise HostProblem(Reason.DEPENDENCY_MISSING, f"no disk backend works here: {'; '.join(problems)}")

    async def _choose_network(self, wish: str) -> str:
        if wish == USER_NETWORK:
            return wish
        problem = await self._network.problem()
        if not problem:
            return wish or DEFAULT_NETWORK
        if wish:
            raise HostProblem(Reason.DEPENDENCY_MISSING, f"no network {wish!r}: {problem}", "sudo ingle system install")
        return USER_NETWORK

    async def _check_name_free(self, name: str) -> None:
        if not name:
            return
        with suppress(NotFound):
            await self._store.vm(name)
            raise Conflict(Reason.NAME_TAKEN, f"there is a VM named {name!r} already", f"ingle vm show {name}")


def _name(reference: str, item: Image | Kernel) -> str:
    """What people read: who gave an id gets a name, where there is one."""
    if reference != item.id:
        return reference
    return item.names[0] if item.names else item.id[:_SHOWN_ID]

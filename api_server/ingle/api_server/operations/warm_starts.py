"""Memories of guests that have booted and run nothing: made, found again, and thrown away.

The first VM on a machine boots, and so does, behind its back, a guest on such a machine that nobody gets to use. Later
ones begin with that one's memory. One is made at a time, owners take turns, with what others leave of the processors.
"""

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ingle.api_server import pipeline
from ingle.api_server.model.caller import Caller
from ingle.api_server.model.errors import BadFile, IngleError, InvalidArgument, NotFound
from ingle.api_server.model.ids import new_op_id, new_vm_id
from ingle.api_server.model.network import DEFAULT_NETWORK, USER_NETWORK
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.quota import Use
from ingle.api_server.model.spec import HostLimits, VmSpec, size_text
from ingle.api_server.model.vm import BootMode, Image, Init, Kernel, Vm, VmSettings, VmState
from ingle.api_server.model.warm import Machine, WarmMemory
from ingle.api_server.operations.disk_room import DiskRoom
from ingle.api_server.operations.placement import Placement
from ingle.api_server.operations.resolve import Resolve
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.operations.turns import Turns
from ingle.api_server.pipeline import Step
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.disk import BootMedia, DiskBackend
from ingle.api_server.ports.engine import Engine
from ingle.api_server.ports.store.items import ItemStore
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.ports.warm import WarmCache
from ingle.api_server.steps.target import PristineStart

log = logging.getLogger(__name__)

_NAME = "pristine"
_SETTLE_SECONDS = 1.0
"""A create that has just ended is mostly followed by what it was for."""

_MOST_OF_THE_HOST = 4
"""By itself nothing is made that takes more than this part of the host's memory."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One that is there. `vms`: how many run that have begun with it. `usable`: whether one still can."""

    memory: WarmMemory
    vms: int
    usable: bool


class WarmStarts:
    """The one that knows which VM can begin with what."""

    def __init__(
        self,
        *,
        operations: Operations,
        vms: VmStore,
        images: ItemStore[Image],
        kernels: ItemStore[Kernel],
        journal: Journal,
        clock: Clock,
        engines: Mapping[str, Engine],
        backends: Mapping[str, DiskBackend],
        media: BootMedia,
        placement: Placement,
        resolve: Resolve,
        cache: WarmCache,
        files: VmFiles,
        steps: Sequence[Step[PristineStart]],
        room: DiskRoom,
        limits: HostLimits,
    ) -> None:
        """`files` are those of guests that are being made, which `steps` do."""
        self._operations = operations
        self._vms = vms
        self._images = images
        self._kernels = kernels
        self._journal = journal
        self._clock = clock
        self._engines = engines
        self._backends = backends
        self._media = media
        self._placement = placement
        self._resolve = resolve
        self._cache = cache
        self._files = files
        self.steps = steps
        self._room = room
        self._limits = limits
        self._settings = resolve.defaults
        self._asked: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By owner: nobody waits for what another has asked for."""
        self._behind = Turns()
        self._begun: set[str] = set()
        self._unfit: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def check(self, mode: BootMode, settings: VmSettings) -> None:
        """Raise InvalidArgument when a VM that is to begin with a memory can't."""
        if mode is BootMode.WARM and (why := self._never(settings)):
            raise InvalidArgument(f"boot warm: {why}", f"--boot {BootMode.AUTO.value}", field="boot_mode")

    async def memory_for(
        self, mode: BootMode, vm: Vm, image: Image, kernel: Kernel, progress: Progress
    ) -> WarmMemory | None:
        """What a new VM begins with; None when it boots. For one that must begin with a memory one is made."""
        if mode is BootMode.COLD or self._never(vm.settings) or (mode is BootMode.AUTO and not self._settings().warm):
            return None
        machine = await self._machine(vm, kernel)
        memory = await self._find(machine, progress)
        if memory is None and mode is BootMode.WARM:
            memory = await self._make_once(machine, image, kernel, progress, waited=True)
        return memory

    async def warm(self, op_id: str, caller: Caller, wish: VmSpec) -> Ongoing[WarmMemory]:
        """Begin to make what the caller's VMs begin with that are wished for so."""
        wanted = await self._resolve.look(wish)
        taken = Use(vcpus=wanted.spec.vcpus, memory_bytes=wanted.spec.memory_bytes)
        await self._vms.check_room(caller.uid, taken)
        self._room.check_start()

        async def work(progress: Progress) -> WarmMemory:
            resolved = await self._resolve.get(wanted, progress, caller)
            progress.found(resolved.image.id)
            self.check(BootMode.WARM, resolved.settings)
            vm = Vm("", _NAME, self._clock.now(), resolved.settings, VmState.CREATING, owner=caller.uid)
            return await self._have(vm, resolved.image, resolved.kernel, progress, waited=True)

        target = "" if wanted.image is None else wanted.image.id
        return await self._operations.begin(op_id, caller.uid, OperationKind.WARM_IMAGE, work, target)

    def make_later(self, vm: Vm, image: Image, kernel: Kernel) -> None:
        """A VM has booted: have the next one begin with a memory, unless something speaks against it."""
        settings = self._settings()
        if self._never(vm.settings) or not settings.warm or not settings.warm_cache_bytes or self._operations.closing:
            return
        if vm.settings.memory_bytes > self._limits.memory_bytes // _MOST_OF_THE_HOST:
            return
        self._later(self._begin(vm, image, kernel))

    async def forget(self, item_id: str) -> None:
        """An image or a kernel was deleted."""
        for memory in await self._cache.all():
            if item_id in (memory.machine.image_id, memory.machine.kernel_id):
                await self._cache.remove(memory.key)

    async def take_up(self) -> None:
        """What an earlier server was in the middle of is swept away, after what it ran has been ended; so is what is of
        images and kernels that are gone. For start-up."""
        await self._cache.sweep()
        known = {image.id for image in await self._images.all()} | {kernel.id for kernel in await self._kernels.all()}
        for memory in await self._cache.all():
            if not {memory.machine.image_id, memory.machine.kernel_id} <= known:
                await self._cache.remove(memory.key)

    async def listed(self, caller: Caller, *, all_users: bool = False) -> list[Listed]:
        """The caller's, or everybody's; the least recently used first. Raises Conflict(NOT_ADMIN)."""
        if all_users:
            caller.check_all_users()
        used = await self._used()
        return [
            Listed(memory, used.count(memory.key), await self._usable(memory))
            for memory in await self._cache.all()
            if all_users or memory.machine.owner == caller.uid
        ]

    async def prunable(self, caller: Caller, *, usable: bool) -> list[Listed]:
        """Of those that the caller may delete, the ones that no VM can begin with any more; if asked for, those as well
        that no VM runs from."""
        listed = await self.listed(caller, all_users=caller.admin)
        return [each for each in listed if not each.vms and (usable or not each.usable)]

    async def prune(self, caller: Caller, *, usable: bool) -> list[Listed]:
        """Delete them; answers them."""
        pruned = await self.prunable(caller, usable=usable)
        for each in pruned:
            await self._cache.remove(each.memory.key)
        return pruned

    async def close(self) -> None:
        """Begin nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _never(self, settings: VmSettings) -> str:
        """Why VMs with these settings always boot; empty when they need not."""
        engine = self._engines.get(settings.engine)
        if engine is None or not engine.info.saves:
            return f"engine {settings.engine} saves no memory"
        if settings.init is not Init.AGENT:
            return "what the image's own init starts can't be told that it is another VM"
        backend = self._backends.get(settings.disk_backend)
        if backend is None or not backend.stacks:  # the helper makes devices for VMs alone, where they have their files
            return f"no guest that is nobody's VM can have a {settings.disk_backend} disk"
        return ""

    async def _machine(self, vm: Vm, kernel: Kernel) -> Machine:
        acceleration = await self._placement.acceleration(vm, kernel)
        key = await self._engines[vm.settings.engine].memory_key(vm, kernel, acceleration)
        return Machine.of(vm, acceleration, key, self._media.agent())

    async def _find(self, machine: Machine, progress: Progress) -> WarmMemory | None:
        try:
            return await self._cache.find(machine.key)
        except BadFile as error:
            progress.warn(f"{error.message}; it is deleted, and the VM boots")
            await self._cache.remove(machine.key)
            return None

    async def _begin(self, vm: Vm, image: Image, kernel: Kernel) -> None:
        """As an operation of its own, in a while."""
        machine = await self._machine(vm, kernel)
        key = machine.key
        if key in self._begun or key in self._unfit:
            return
        self._begun.add(key)
        try:
            await asyncio.sleep(_SETTLE_SECONDS)
            self._room.check_start()

            async def work(progress: Progress) -> WarmMemory:
                return await self._have(vm, image, kernel, progress, waited=False)

            running = await self._operations.begin(new_op_id(), vm.owner, OperationKind.WARM_IMAGE, work, image.id)
            await running.result()
        except IngleError as error:
            log.warning("VMs of this kind go on booting: %s", error.message, extra={"image": image.id})
        finally:
            self._begun.discard(key)

    async def _have(self, vm: Vm, image: Image, kernel: Kernel, progress: Progress, *, waited: bool) -> WarmMemory:
        machine = await self._machine(vm, kernel)
        memory = await self._find(machine, progress)
        return memory or await self._make_once(machine, image, kernel, progress, waited=waited)

    async def _make_once(
        self, machine: Machine, image: Image, kernel: Kernel, progress: Progress, *, waited: bool
    ) -> WarmMemory:
        """Who waits for one does not wait for what is made behind somebody's back."""
        async with self._asked[machine.owner] if waited else self._behind.of(machine.owner):
            memory = await self._find(machine, progress)  # somebody else has made it meanwhile
            return memory or await self._make(machine, image, kernel, progress, waited=waited)

    async def _make(
        self, machine: Machine, image: Image, kernel: Kernel, progress: Progress, *, waited: bool
    ) -> WarmMemory:
        taken = Use(vcpus=machine.vcpus, memory_bytes=machine.memory_bytes)  # while it is made
        await self._vms.check_room(machine.owner, taken)
        vm_id = new_vm_id()
        # Nothing of a user's but the machine.
        pristine = replace(_vm_on(machine, self._clock), id=vm_id, state=VmState.STARTING)
        target = PristineStart(
            op_id=progress.operation.id,
            vm_id=vm_id,
            paths=self._files.paths(vm_id),
            vm=pristine,
            image=image,
            kernel=kernel,
            token=secrets.token_bytes(32),
            acceleration=machine.acceleration,
            machine=machine,
            waited=waited,
        )
        await pipeline.run(self.steps, target, self._journal, progress.stage)
        assert target.kept is not None
        await self._tidy(target.kept, image, kernel, progress)
        return target.kept

    async def _tidy(self, memory: WarmMemory, image: Image, kernel: Kernel, progress: Progress) -> None:
        """After one has come: those that it replaces go, and the least recently used, if they are too many."""
        used = await self._used()
        for other in await self._cache.all():
            if other.key not in (memory.key, *used) and _succeeds(memory.machine, other.machine):
                await self._cache.remove(other.key)
        most = self._settings().warm_cache_bytes
        if memory.key in await self._cache.bound(most, used):
            self._unfit.add(memory.key)
            progress.warn(
                f"the memory takes {size_text(memory.allocated_bytes)}, and warm_cache_bytes is {size_text(most)}"
            )
        try:
            await self._images.get(image.id)
            await self._kernels.get(kernel.id)
        except NotFound:  # deleted meanwhile
            await self._cache.remove(memory.key)
            raise

    async def _used(self) -> list[str]:
        """Keys of what VMs run from, one for each."""
        return [vm.vmm.warm_key for vm in await self._vms.all() if vm.vmm is not None and vm.vmm.warm_key]

    async def _usable(self, memory: WarmMemory) -> bool:
        machine = memory.machine
        engine = self._engines.get(machine.engine)
        try:
            kernel = await self._kernels.get(machine.kernel_id)
            if engine is None or machine.agent != self._media.agent():
                return False
            vm = _vm_on(machine, self._clock)
            return machine.engine_key == await engine.memory_key(vm, kernel, machine.acceleration)
        except IngleError:
            return False

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="warm")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a memory could not be made", exc_info=error)


def _succeeds(new: Machine, old: Machine) -> bool:
    """Whether the one takes the place of the other, since something of the host was replaced."""
    return new == replace(old, engine_key=new.engine_key, agent=new.agent)


def _vm_on(machine: Machine, clock: Clock) -> Vm:
    settings = VmSettings(
        image_id=machine.image_id,
        image_name="",
        kernel_id=machine.kernel_id,
        kernel_name="",
        engine=machine.engine,
        acceleration=machine.acceleration,
        disk_backend=machine.disk_backend,
        vcpus=machine.vcpus,
        memory_bytes=machine.memory_bytes,
        disk_bytes=machine.disk_bytes,
        init=machine.init,
        network=DEFAULT_NETWORK if machine.shared_network else USER_NETWORK,
    )
    return Vm("0" * 12, _NAME, clock.now(), settings, VmState.STOPPED, owner=machine.owner)

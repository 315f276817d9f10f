"""Keep what a guest is at one instant: its memory and its disk."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ingle.api_server.model.errors import Conflict, GuestError, IngleError, NotFound, Reason
from ingle.api_server.model.vm import Vm
from ingle.api_server.pipeline import uninterrupted
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.engine import Engine, Vmm, engine_of
from ingle.api_server.ports.guest import GuestChannel, GuestDialler
from ingle.api_server.ports.snapshot_files import SnapshotFiles
from ingle.api_server.ports.sources import Library
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps import hooks
from ingle.api_server.steps.snapshot_target import Making, SnapshotTarget
from ingle.api_server.steps.tell_time import news, tell_time

log = logging.getLogger(__name__)

_ASKING_SECONDS = 0.2
"""What those have who came to the guest just before: one that rests takes no new requests, and goes on with all that it
has taken."""

_TELL_SECONDS = 10.0
_THAW_SECONDS = 30.0  # a hook of ten in it; whoever wants something of the VM waits as long
_END_SECONDS = 2.0  # from a VMM that does not answer to the end that is why


class LiveVms(Protocol):
    """VMMs that live, by VM."""

    def lock(self, vm_id: str) -> asyncio.Lock:
        """Whoever changes a VM's state holds it."""

    def vmm(self, vm_id: str) -> Vmm | None:
        """The VM's, whatever its state."""

    def moving_vmm(self, vm: Vm) -> Vmm:
        """The same of a guest that gets on. Raises Conflict(WRONG_STATE), HostProblem(DISK_FULL)."""


class SaveGuest:
    """A guest that runs stands still for it and goes on, whatever comes of it. For all others its VM is running as
    before: who asks something of it waits.

    A guest that does not answer when it is to go on fails nothing: what is saved is whole, and may be all that is left
    of it. Its VM tells of that, and when it is resumed the next time it is asked again.

    Undo is for a server that was killed while the guest stood still: the next one has adopted its VMM by then."""

    name = "save-guest"
    text = "keeping the guest as it is"

    def __init__(
        self,
        vms: VmStore,
        snapshots: SnapshotStore,
        live: LiveVms,
        dialler: GuestDialler,
        files: VmFiles,
        snapshot_files: SnapshotFiles,
        engines: Mapping[str, Engine],
        backends: Mapping[str, DiskBackend],
        images: Library,
        clock: Clock,
        closed: Callable[[str], AbstractContextManager[bool]],
    ) -> None:
        """While the context that `closed` makes for a VM is open, whoever comes to its guest waits for the VM's
        lock."""
        self._vms = vms
        self._snapshots = snapshots
        self._live = live
        self._dialler = dialler
        self._files = files
        self._snapshot_files = snapshot_files
        self._engines = engines
        self._backends = backends
        self._images = images
        self._clock = clock
        self._closed = closed

    async def run(self, target: Making) -> None:
        async with self._live.lock(target.vm.id):
            vm = await self._vms.get(target.vm.id)
            if vm.state is not target.vm.state or vm.snapshot_id != target.vm.snapshot_id:
                raise _changed(vm, target.vm)
            target.vm = vm
            target.snapshot = replace(target.snapshot, vm_name=vm.name, settings=vm.settings, parent_id=vm.snapshot_id)
            if not vm.state.reachable:
                if target.snapshot.memory:
                    raise _not_taken(vm, f"was about to wake, and is {vm.state.value} by now")
                await self._keep_disk(target)
                return
            vmm = self._live.moving_vmm(vm)
            await self._note_engine(target)
            with self._closed(vm.id) as empty:
                if not empty:
                    await asyncio.sleep(_ASKING_SECONDS)
                await self._hold(target, vmm)

    async def undo(self, target: SnapshotTarget) -> None:
        if isinstance(target, Making) and not target.held:
            return
        try:
            vm_id = (await self._snapshots.get(target.snapshot_id)).vm_id
        except NotFound:
            return
        async with self._live.lock(vm_id):
            vmm = self._live.vmm(vm_id)
            if vmm is None:
                return
            try:
                await self._go_on(vm_id, vmm, target.op_id)
            except IngleError:
                if not await vmm.wait_gone(_END_SECONDS):
                    raise

    async def _note_engine(self, target: Making) -> None:
        """What a memory can be gone on from by."""
        if not target.snapshot.memory or target.vm.vmm is None:
            return
        acceleration = target.vm.vmm.acceleration
        engine = engine_of(target.vm, self._engines)
        target.token = await self._vms.token(target.vm.id)
        target.snapshot = replace(
            target.snapshot,
            acceleration=acceleration,
            memory_key=await engine.memory_key(target.vm, target.kernel, acceleration),
        )

    async def _hold(self, target: Making, vmm: Vmm) -> None:
        target.held = True
        try:
            hooks.note(await self._dialler.channel(vmm.agent).rest(), target.vm.id)
            began = self._clock.monotonic()
            await vmm.pause()
            if target.snapshot.memory:
                await vmm.save(self._snapshot_files.memory(target.directory))
            await self._keep_disk(target)
        finally:
            await uninterrupted(self._let_go(target, vmm))
        target.snapshot = replace(target.snapshot, pause_seconds=self._clock.monotonic() - began)

    async def _let_go(self, target: Making, vmm: Vmm) -> None:
        await self._go_on(target.vm.id, vmm, target.op_id)
        target.held = False

    async def _go_on(self, vm_id: str, vmm: Vmm, op_id: str) -> None:
        await vmm.resume()
        channel = self._dialler.channel(vmm.agent)
        try:
            await self._tell(channel, vm_id)
            hooks.note(await channel.thaw(timeout_seconds=_THAW_SECONDS), vm_id)
        except IngleError as error:
            if await vmm.wait_gone(_END_SECONDS):
                raise
            log.warning("a guest that was saved may stand still: %s", error.message, extra={"vm": vm_id})
            name = (await self._vms.get(vm_id)).name
            why = "a snapshot was taken of it, and its agent does not answer, so its programs may stand still"
            ask_again = f"to ask again: ingle vm pause {name}, then ingle vm resume {name}"
            await self._vms.note_sleep_error(vm_id, f"{why}: {error.message} ({ask_again})", op_id)

    async def _tell(self, channel: GuestChannel, vm_id: str) -> None:
        """What it has to hear that stood still. It goes on without, too."""
        try:
            async with asyncio.timeout(_TELL_SECONDS):
                await tell_time(channel, self._clock, news())
        except (GuestError, TimeoutError) as error:
            log.warning("a guest that was saved was not told the time: %r", error, extra={"vm": vm_id})

    async def _keep_disk(self, target: Making) -> None:
        """Its own changes, over what they were made to: an image, or the disk of another snapshot."""
        vm = target.vm
        backend = self._backends[vm.settings.disk_backend]
        base = self._images.path(vm.settings.image_id) / "rootfs.ext4"
        if vm.snapshot_id:
            base = backend.disk_path(self._snapshot_files.path(vm.snapshot_id))
        await backend.duplicate(self._disk(backend, vm), base, target.directory)

    def _disk(self, backend: DiskBackend, vm: Vm) -> Path:
        return backend.disk_path(self._files.paths(vm.id).state)


def _changed(now: Vm, before: Vm) -> Conflict:
    what = f"was {before.state.value}, and is {now.state.value} by now"
    if now.state is before.state:
        what = "was put back meanwhile"
    return _not_taken(now, what)


def _not_taken(vm: Vm, what: str) -> Conflict:
    return Conflict(Reason.WRONG_STATE, f"VM {vm.name!r} {what}: no snapshot was taken", f"ingle vm show {vm.name}")

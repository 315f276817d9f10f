"""The VMMs that live right now: who holds which, and what happens when one dies by itself."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from ingle.api_server.model.errors import Conflict, GuestError, HostProblem, IngleError, NotFound, Reason, ToolFailed
from ingle.api_server.model.guest import GuestConfiguration
from ingle.api_server.model.spec import size_text
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.ports.engine import Vmm
from ingle.api_server.ports.files import VmFiles
from ingle.api_server.ports.guest import GuestChannel, GuestDialler
from ingle.api_server.ports.store import Store
from ingle.api_server.steps.release import Release

log = logging.getLogger(__name__)


NO_ANSWER = "its VMM was started by an earlier server and does not answer this one"
"""What is wrong with a VM that is RUNNING and has no VMM here."""

_TRIM_SECONDS = 5.0
_TIME_SECONDS = 30.0
_CLOCK_TOLERANCE_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_END_SECONDS = 2.0  # from an agent that hangs up to the end of its VMM, when the guest powers off by itself
_ROOM = 32 * 1024 * 1024  # more than the reserve that the server keeps for itself needs


class Fleet:
    """Live VMMs by VM id, and one lock a VM: whoever changes a VM's state holds it."""

    def __init__(self, store: Store, files: VmFiles, dialler: GuestDialler, release: Release) -> None:
        self._store = store
        self._files = files
        self._dialler = dialler
        self._release = release
        self._vmms: dict[str, Vmm] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._stopped: set[str] = set()
        self._rebooting: set[str] = set()
        self._watchers: set[asyncio.Task[None]] = set()
        self.boot_again: Callable[[str], Awaitable[object]] | None = None
        """What begins to start a VM, by its id, whose guest has rebooted."""

    def lock(self, vm_id: str) -> asyncio.Lock:
        """The VM's lock: one as long as anybody holds it or waits for it."""
        return self._locks.setdefault(vm_id, asyncio.Lock())

    def attach(self, vm: Vm, vmm: Vmm) -> None:
        """`vmm` runs `vm`, and is watched from now on."""
        self._rebooting.discard(vm.id)
        self._vmms[vm.id] = vmm
        for watch in (self._watch(vm.id, vmm), self._tend(vm.id, vmm), self._keep_time(vm.id, vmm)):
            watcher = asyncio.create_task(watch, name=f"watch-{vm.id}")
            self._watchers.add(watcher)
            watcher.add_done_callback(self._watchers.discard)

    async def detach(self, vm_id: str) -> None:
        """The VM's process is gone, and nobody else has the word on its state: the caller holds the lock."""
        self._stopped.discard(vm_id)
        vmm = self._vmms.pop(vm_id, None)
        if vmm is not None:
            await vmm.close()

    def record_stop_later(self, vm_id: str) -> None:
        """The VM was stopped on purpose, and there is no space to write it down: its watcher tries until there is."""
        self._stopped.add(vm_id)

    async def rebooted(self, vm_id: str) -> None:
        """Its guest has rebooted while no server was there."""
        if not await self._belongs_to_a_call(vm_id):
            self._rebooting.add(vm_id)

    async def boot_rebooted(self) -> None:
        """Begin to start those."""
        for vm_id in list(self._rebooting):
            await self._boot_again(vm_id)

    def stays_stopped(self, vm_id: str) -> None:
        """Somebody wants it stopped, and finds that no VMM runs it: also when its guest has just rebooted."""
        self._rebooting.discard(vm_id)

    def boots_again(self, vm_id: str) -> bool:
        """Whether its guest has rebooted, and nobody wanted it stopped since. The caller holds the lock."""
        return vm_id in self._rebooting

    def vmm(self, vm_id: str) -> Vmm | None:
        """The VM's live VMM."""
        return self._vmms.get(vm_id)

    def running_vmm(self, vm: Vm) -> Vmm:
        """The same. Raises Conflict(WRONG_STATE) when there is none."""
        vmm = self._vmms.get(vm.id)
        if vmm is None or vm.state is not VmState.RUNNING:
            raise Conflict(
                Reason.WRONG_STATE, f"VM {vm.name!r} is not running ({vm.state.value})", f"ingle vm start {vm.name}"
            )
        return vmm

    def channel(self, vm: Vm) -> GuestChannel:
        """The way into a running VM. Raises Conflict(WRONG_STATE), HostProblem(DISK_FULL) for one that stands still."""
        return self._dialler.channel(self._moving_vmm(vm).agent)

    def _moving_vmm(self, vm: Vm) -> Vmm:
        vmm = self.running_vmm(vm)
        if why := self.stalled(vm.id):
            raise HostProblem(Reason.DISK_FULL, f"VM {vm.name!r} is running, but {why}", "free some space: df -h")
        return vmm

    @asynccontextmanager
    async def conversation(self, vm: Vm) -> AsyncIterator[GuestChannel]:
        """The way into a running VM, for as long as the context is open. Raises what `channel` does, and in place of
        GUEST_UNREACHABLE from inside the context GuestError(VM_ENDED) when it is the VM that is gone."""
        vmm = self._moving_vmm(vm)
        try:
            yield self._dialler.channel(vmm.agent)
        except GuestError as error:
            if error.reason is not Reason.GUEST_UNREACHABLE:
                raise
            if (ended := await self._how_it_ended(vm, vmm)) is not None:
                raise ended from error
            # It is busy beyond measure, or was killed: an agent beside an init comes back by itself, if the kernel can.
            raise GuestError(error.reason, error.message, error.remedy or f"ingle vm restart {vm.name}") from error

    async def check_killed(self, vm: Vm) -> None:
        """For a command that a signal ended. Raises GuestError(VM_ENDED) when that came with the end of its VM."""
        now = await self._store.vm(vm.id)
        if now.state is VmState.STOPPING:
            raise _stopped(now)

    async def close(self) -> None:
        """Let go of all. Every VMM lives on."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for vm_id in list(self._vmms):
            await self.detach(vm_id)

    def stalled(self, vm_id: str) -> str:
        """Why the VM stands still though it runs; empty when it doesn't."""
        vmm = self._vmms.get(vm_id)
        if vmm is None or not vmm.stalled:
            return ""
        paths = self._files.paths(vm_id)
        return (
            f"it stands still: the host's disk is full ({size_text(self._files.free_bytes(paths))} free below "
            f"{paths.state.parent}); it goes on by itself once {size_text(_ROOM)} are free"
        )

    async def _tend(self, vm_id: str, vmm: Vmm) -> None:
        """A guest writes to its console at will: what it wrote long ago must not fill the host's disk. And one that has
        filled it with what it wrote to its own disk goes on when there is room."""
        while self._vmms.get(vm_id) is vmm:
            try:
                vmm.bound_logs()
            except OSError as error:
                log.warning("its logs are not bounded: %s", error, extra={"vm": vm_id})
            if vmm.stalled and self._files.free_bytes(self._files.paths(vm_id)) >= _ROOM:
                await self._go_on(vm_id, vmm)
            if await vmm.wait_gone(_TRIM_SECONDS):
                return

    async def _keep_time(self, vm_id: str, vmm: Vmm) -> None:
        """A guest that stood still, while its host slept say, has a clock that is late, and does not know. One that
        somebody in the guest has set is theirs."""
        channel = self._dialler.channel(vmm.agent)
        while not await vmm.wait_gone(_TIME_SECONDS) and self._vmms.get(vm_id) is vmm:
            now = GuestConfiguration(
                unix_nanoseconds=time.time_ns(),
                clock_tolerance_seconds=_CLOCK_TOLERANCE_SECONDS,
                clock_unless_set_by_guest=True,
            )
            try:
                configured = await channel.configure(now)
            except IngleError as error:  # it is busy, or ending
                log.debug("the guest was not told the time: %s", error.message, extra={"vm": vm_id})
                continue
            if configured.clock_stepped:
                log.warning("the guest's clock was set", extra={"vm": vm_id, "ahead": configured.clock_offset_seconds})

    async def _go_on(self, vm_id: str, vmm: Vmm) -> None:
        try:
            await vmm.resume()
        except ToolFailed as error:  # it is ending, or the next round tries again
            log.warning("a guest that stands still can't go on: %s", error.message, extra={"vm": vm_id})
        else:
            log.warning("there is room on the host's disk again: a guest that stood still goes on", extra={"vm": vm_id})

    async def _how_it_ended(self, vm: Vm, vmm: Vmm) -> GuestError | None:
        """What became of a VM whose agent hung up; None when it runs on."""
        try:
            if (await self._store.vm(vm.id)).state is VmState.RUNNING and not await vmm.wait_gone(_END_SECONDS):
                return None
            async with self.lock(vm.id):  # who ends a VM holds it until the store knows how
                now = await self._store.vm(vm.id)
        except NotFound:
            return GuestError(Reason.VM_ENDED, f"VM {vm.name!r} was deleted in the middle of it")
        return _stopped(now)

    async def _watch(self, vm_id: str, vmm: Vmm) -> None:
        await vmm.wait_gone()
        restarts: bool | None = None
        while True:
            async with self.lock(vm_id):
                if self._vmms.get(vm_id) is not vmm:
                    return  # stopped, killed or deleted on purpose: that operation has the word
                try:
                    if restarts is None:  # found out by what goes with the VM's runtime directory
                        restarts = vmm.restarts and not await self._belongs_to_a_call(vm_id)
                    await self._record_end(vm_id, vmm)
                except Exception:  # a full disk, say: until it is recorded, nobody may take the VM for one that runs
                    log.exception("the end of VM %s can't be recorded", vm_id)
                else:
                    if restarts:
                        self._rebooting.add(vm_id)
                    break
            await asyncio.sleep(_RETRY_SECONDS)
        if restarts:
            await self._boot_again(vm_id)

    async def _boot_again(self, vm_id: str) -> None:
        if self.boot_again is None:
            return
        try:
            await self.boot_again(vm_id)
        except IngleError as error:  # the server stops, say
            log.warning("a guest that rebooted is not started again: %s", error.message, extra={"vm": vm_id})

    async def _belongs_to_a_call(self, vm_id: str) -> bool:
        """Then it goes with the call, whose command has ended with the guest."""
        return (vm_id, None) in await self._store.owners()

    async def _record_end(self, vm_id: str, vmm: Vmm) -> None:
        failure = "" if vm_id in self._stopped else vmm.failure
        log.warning("VMM ended", extra={"vm": vm_id, "failure": failure})
        await self._release.of(await self._store.vm(vm_id))
        await self._store.move_vm(vm_id, VmState.ERROR if failure else VmState.STOPPED, error=failure)
        await self.detach(vm_id)


def _stopped(vm: Vm) -> GuestError:
    how = f"died in the middle of it: {vm.error}" if vm.error else "was stopped in the middle of it"
    return GuestError(Reason.VM_ENDED, f"VM {vm.name!r} {how}", f"ingle vm start {vm.name}")

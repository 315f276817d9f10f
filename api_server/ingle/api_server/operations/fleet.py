"""The VMMs that live right now: who holds which, and what happens when one dies by itself."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from weakref import WeakValueDictionary

from ingle.api_server.model.errors import Conflict, HostProblem, IngleError, Reason, ToolFailed
from ingle.api_server.model.event import StopCause
from ingle.api_server.model.spec import size_text
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.reboots import Reboots
from ingle.api_server.ports.engine import Vmm
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.release import Release

log = logging.getLogger(__name__)


_NO_ANSWER = "its VMM was started by an earlier server and does not answer this one"
"""What is wrong with a VM that is RUNNING and has no VMM here."""

_LOOK_SECONDS = 1.0
"""How exactly the times of what a guest says are told."""
_LOOKS = 5
"""From one time that logs are bounded to the next."""
_RETRY_SECONDS = 1.0
_SILENT_ROUNDS = 12
"""A minute: of one VM that stands still and goes on, not more than that is told."""

_ROOM = 32 * 1024 * 1024  # more than the reserve that the server keeps for itself needs


class Fleet:
    """Live VMMs by VM id, and one lock a VM: whoever changes a VM's state holds it."""

    def __init__(self, vms: VmStore, journal: Journal, files: VmFiles, release: Release) -> None:
        self._vms = vms
        self._files = files
        self._release = release
        self._vmms: dict[str, Vmm] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._stopped: dict[str, StopCause] = {}
        self._silent: dict[str, str] = {}
        self.reboots = Reboots(journal)
        self.only_paused: set[str] = set()
        """VMs, by id, that this server has paused without having asked their guests to rest: those of others may."""

        self.renamed_asleep: set[str] = set()
        """VMs, by id, whose guests are to be told a new name when they go on. The next server does not know."""

        self._watchers: set[asyncio.Task[None]] = set()
        self.boot_again: Callable[[str], Awaitable[object]] | None = None
        """What begins to start a VM, by its id, whose guest has rebooted."""
        self.watches: Sequence[Callable[[str, Vmm], Coroutine[None, None, None]]] = ()
        """What else to do for each VM, by its id, as long as its VMM lives."""

    def lock(self, vm_id: str) -> asyncio.Lock:
        """The VM's lock: one as long as anybody holds it or waits for it."""
        return self._locks.setdefault(vm_id, asyncio.Lock())

    def attach(self, vm: Vm, vmm: Vmm) -> None:
        """`vmm` runs `vm`, and is watched from now on."""
        self.reboots.discard(vm.id)
        self._vmms[vm.id] = vmm
        for watch in (self._watch, self._tend, *self.watches):
            watcher = asyncio.create_task(watch(vm.id, vmm), name=f"watch-{vm.id}")
            self._watchers.add(watcher)
            watcher.add_done_callback(self._watchers.discard)

    def does_not_answer(self, vm_id: str, why: str) -> None:
        """An earlier server's VMM lives, and this server can't take it over."""
        self._silent[vm_id] = why

    def silence(self, vm: Vm) -> str:
        """What is wrong with a VM that is alive and has no VMM here; empty of every other."""
        if not vm.state.alive or vm.id in self._vmms:
            return ""
        why = self._silent.get(vm.id)
        return f"{_NO_ANSWER}: {why}" if why else _NO_ANSWER

    async def detach(self, vm_id: str) -> None:
        """The VM's process is gone, and nobody else has the word on its state: the caller holds the lock."""
        self._stopped.pop(vm_id, None)
        self._silent.pop(vm_id, None)
        self.only_paused.discard(vm_id)
        vmm = self._vmms.pop(vm_id, None)
        if vmm is not None:
            await vmm.close()

    def record_stop_later(self, vm_id: str, cause: StopCause) -> None:
        """The VM was stopped on purpose, and there is no space to write it down: its watcher tries until there is."""
        self._stopped[vm_id] = cause

    async def rebooted(self, vm_id: str) -> None:
        """It is to be started again: its guest has rebooted while no server was there, or it is up when the host is."""
        if not await self._belongs_to_a_call(vm_id):
            await self.reboots.add(vm_id)

    def stays_stopped(self, vm_id: str) -> None:
        """Somebody wants it stopped, and finds that no VMM runs it: also when its guest has just rebooted."""
        self.reboots.discard(vm_id)

    def vmm(self, vm_id: str) -> Vmm | None:
        """The VM's live VMM."""
        return self._vmms.get(vm_id)

    def failure(self, vm_id: str, vmm: Vmm) -> str:
        """Why that VMM of the VM's has ended, if nobody wanted it; known before the store knows."""
        return "" if vm_id in self._stopped else vmm.failure

    def live_vmm(self, vm: Vm) -> Vmm:
        """The same, of a guest that runs or stands still. Raises Conflict(WRONG_STATE) when there is none."""
        if silence := self.silence(vm):
            raise Conflict(Reason.WRONG_STATE, silence, f"ingle vm delete --force {vm.name}, or try a new server")
        vmm = self._vmms.get(vm.id)
        if vmm is None or not vm.state.alive:
            raise _not_running(vm)
        return vmm

    def running_vmm(self, vm: Vm) -> Vmm:
        """The same, of a guest that runs."""
        if not vm.state.reachable:
            raise _not_running(vm)
        return self.live_vmm(vm)

    def moving_vmm(self, vm: Vm) -> Vmm:
        """The same, when its guest gets on. Raises HostProblem(DISK_FULL) for one that stands still."""
        vmm = self.running_vmm(vm)
        if why := self.stalled(vm.id):
            raise HostProblem(Reason.DISK_FULL, f"VM {vm.name!r} is running, but {why}", "free some space: df -h")
        return vmm

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
        told: bool | None = None
        silent_rounds = _SILENT_ROUNDS
        vmm.note_logs()
        while self._vmms.get(vm_id) is vmm:
            try:
                vmm.bound_logs()
            except (OSError, HostProblem) as error:  # such as that something else is in the place of one
                log.warning("its logs are not bounded: %s", error, extra={"vm": vm_id})
            silent_rounds += 1
            # A guest that fills the host's disk again and again must not fill the events as well.
            if vmm.stalled is not told and silent_rounds >= _SILENT_ROUNDS:
                told, silent_rounds = await self._tell_stall(vm_id, vmm.stalled), 0
            if vmm.stalled and self._files.free_bytes(self._files.paths(vm_id)) >= _ROOM:
                await self._go_on(vm_id, vmm)
            for _ in range(_LOOKS):
                if await vmm.wait_gone(_LOOK_SECONDS):
                    return
                vmm.note_logs()

    async def _tell_stall(self, vm_id: str, stalled: bool) -> bool | None:
        """What was told; None when that was not possible, and is tried again."""
        try:
            await self._vms.tell_stall(vm_id, stalled=stalled)
        except HostProblem as error:
            log.warning("no event tells whether it stands still: %s", error.message, extra={"vm": vm_id})
            return None
        return stalled

    async def _go_on(self, vm_id: str, vmm: Vmm) -> None:
        try:
            if (await self._vms.get(vm_id)).state is VmState.PAUSED:
                return  # whoever resumes it will
            await vmm.resume()
        except ToolFailed as error:  # it is ending, or the next round tries again
            log.warning("a guest that stands still can't go on: %s", error.message, extra={"vm": vm_id})
        else:
            log.warning("there is room on the host's disk again: a guest that stood still goes on", extra={"vm": vm_id})

    async def _watch(self, vm_id: str, vmm: Vmm) -> None:
        await vmm.wait_gone()
        restarts = False
        cause: StopCause | None = None
        while True:
            async with self.lock(vm_id):
                if self._vmms.get(vm_id) is not vmm:
                    break  # stopped, killed or deleted on purpose: that operation has the word
                try:
                    if cause is None:  # found out by what goes with the VM's runtime directory
                        cause = _cause(vmm)
                        restarts = vmm.restarts and not await self._belongs_to_a_call(vm_id)
                    if restarts:
                        await self.reboots.add(vm_id)
                    await self._record_end(vm_id, vmm, cause)
                except Exception:  # a full disk, say: until it is recorded, nobody may take the VM for one that runs
                    log.exception("the end of VM %s can't be recorded", vm_id)
                else:
                    break
            await asyncio.sleep(_RETRY_SECONDS)
        if restarts and self.boot_again is not None:
            try:
                await self.boot_again(vm_id)
            except IngleError as error:  # the server stops, say: the journal tells the next one
                log.warning("a guest that rebooted is not started again now: %s", error.message, extra={"vm": vm_id})

    async def _belongs_to_a_call(self, vm_id: str) -> bool:
        """Then it goes with the call, whose command has ended with the guest."""
        return (vm_id, None) in await self._vms.keepers()

    async def _record_end(self, vm_id: str, vmm: Vmm, cause: StopCause) -> None:
        failure = self.failure(vm_id, vmm)
        log.warning("VMM ended", extra={"vm": vm_id, "failure": failure})
        vm = await self._vms.get(vm_id)
        if vm.state is VmState.STOPPING:  # whoever was about it has given up
            cause = StopCause.ASKED
        await self._release.of(vm)
        state = VmState.ERROR if failure else VmState.STOPPED
        await self._vms.move(vm_id, state, error=failure, cause=self._stopped.get(vm_id, cause))
        await self.detach(vm_id)


def _cause(vmm: Vmm) -> StopCause:
    """Why it has ended by itself."""
    if vmm.failure:
        return StopCause.VMM_DIED
    return StopCause.GUEST_REBOOTED if vmm.restarts else StopCause.GUEST_POWERED_OFF


def _not_running(vm: Vm) -> Conflict:
    problem = f"VM {vm.name!r} is not running ({vm.state.value})"
    return Conflict(Reason.WRONG_STATE, problem, f"ingle vm start {vm.name}")

"""The one door into guests: whoever wants something of one comes through here, and nobody else has a way in."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TypeAlias, TypeVar

from ingle.api_server.model.caller import Reference
from ingle.api_server.model.errors import GuestError, NotFound, Reason
from ingle.api_server.model.guest import Exited, Said
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.ports.engine import Vmm
from ingle.api_server.ports.guest import Conversation, GuestChannel, GuestDialler
from ingle.api_server.ports.store.vms import VmStore

_E = TypeVar("_E")
Begin: TypeAlias = Callable[[GuestChannel, Vm], AbstractAsyncContextManager[Conversation[_E]]]

_END_SECONDS = 2.0  # from an agent that hangs up to the end of its VMM, when the guest powers off by itself


class UseGuest:
    """Finds the VM, sees that its guest can be asked, and tells how it ended when it is the VM that is gone.

    All raise NotFound, Conflict(WRONG_STATE) for a VM that does not run, HostProblem(DISK_FULL) for one that stands
    still, and in place of GUEST_UNREACHABLE GuestError(VM_ENDED) for one that ended in the middle of it."""

    def __init__(self, vms: VmStore, fleet: Fleet, dialler: GuestDialler) -> None:
        self._vms = vms
        self._fleet = fleet
        self._dialler = dialler
        self.waken: Callable[[str], Awaitable[None]] | None = None
        """What returns when a VM, by its id, is awake that was asleep."""
        self._inside: Counter[str] = Counter()
        self._used: set[str] = set()
        self._closed: set[str] = set()

    async def exact(self, reference: Reference) -> Vm:
        """That VM of the caller's, for `inside`."""
        return await self._vms.exact(reference)

    @asynccontextmanager
    async def use(self, reference: Reference) -> AsyncIterator[GuestChannel]:
        """The way into the guest of that VM of the caller's, for as long as the context is open."""
        async with self.inside(await self._vms.exact(reference)) as channel:
            yield channel

    @asynccontextmanager
    async def look(self, reference: Reference) -> AsyncIterator[GuestChannel]:
        """The same for who changes nothing: the beginning of an id will do."""
        async with self.inside(await self._vms.find(reference)) as channel:
            yield channel

    @asynccontextmanager
    async def inside(self, vm: Vm) -> AsyncIterator[GuestChannel]:
        """The same for a VM that was found already."""
        vmm = await self._awake(vm)
        self._inside[vm.id] += 1
        try:
            yield self._dialler.channel(vmm.agent)
        except GuestError as error:
            if error.reason is not Reason.GUEST_UNREACHABLE:
                raise
            if (ended := await self._how_it_ended(vm, vmm)) is not None:
                raise ended from error
            # It is busy beyond measure, or was killed: an agent beside an init comes back by itself, if the kernel can.
            raise GuestError(error.reason, error.message, error.remedy or f"ingle vm restart {vm.name}") from error
        finally:
            self._inside -= Counter((vm.id,))  # those that are nowhere are not kept
            self._used.add(vm.id)

    def used(self) -> set[str]:
        """VMs, by id, whose guests somebody is inside of, or was since this was last asked."""
        used, self._used = self._used | self._inside.keys(), set()
        return used

    @contextmanager
    def closed(self, vm_id: str) -> Iterator[bool]:
        """Whether nobody is inside of that guest. Who comes while the context is open waits until the VM's lock is
        free, which its caller holds."""
        self._closed.add(vm_id)
        try:
            yield vm_id not in self._inside
        finally:
            self._closed.discard(vm_id)

    def peek(self, vm: Vm) -> GuestChannel:
        """The way into a guest for who wants nothing of it: that is asked how it is, or told the time, and for which no
        VM is woken. How it ended is not told."""
        return self._dialler.channel(self._fleet.moving_vmm(vm).agent)

    async def converse(
        self, reference: Reference, begin: Begin[_E], said: AsyncIterator[Said]
    ) -> AsyncGenerator[_E, None]:
        """What the guest says, in a conversation that `begin` begins, while what the caller says is carried there. A
        caller whose words can't be taken is left, which ends the conversation, and told the reason."""
        vm = await self._vms.exact(reference)
        async with self.inside(vm) as channel, begin(channel, vm) as conversation:
            carrying = asyncio.create_task(_carry(said, conversation))
            try:
                async for event in conversation.events():
                    if isinstance(event, Exited) and event.signal and not event.timed_out:
                        await self._check_killed(vm)
                    yield event
            except GuestError:
                if carrying.done() and (problem := carrying.exception()):
                    raise problem from None  # it is why the events ended
                raise
            finally:
                carrying.cancel()
                await asyncio.gather(carrying, return_exceptions=True)

    async def _awake(self, vm: Vm) -> Vmm:
        """The VMM of a guest that can be asked. Whoever uses a guest waits here: this is where a VM that sleeps is
        woken, once for all who wait."""
        sleeps = vm.id in self._closed or (not vm.state.reachable and vm.asleep_since is not None)
        if self.waken is not None and sleeps:
            await self.waken(vm.id)
            vm = await self._vms.get(vm.id)
        return self._fleet.moving_vmm(vm)

    async def _check_killed(self, vm: Vm) -> None:
        """For a command that a signal ended. Raises GuestError(VM_ENDED) when that came with the end of its VM."""
        now = await self._vms.get(vm.id)
        if now.state is VmState.STOPPING:
            raise _stopped(now)

    async def _how_it_ended(self, vm: Vm, vmm: Vmm) -> GuestError | None:
        """What became of a VM whose agent hung up; None when it runs on."""
        try:
            if (await self._vms.get(vm.id)).state.reachable and not await vmm.wait_gone(_END_SECONDS):
                return None
            async with self._fleet.lock(vm.id):  # who ends a VM holds it until the store knows how
                now = await self._vms.get(vm.id)
        except NotFound:
            return GuestError(Reason.VM_ENDED, f"VM {vm.name!r} was deleted in the middle of it")
        if now.state.reachable:  # its watcher comes next
            now = replace(now, error=self._fleet.failure(vm.id, vmm))
        return _stopped(now)


async def _carry(said: AsyncIterator[Said], conversation: Conversation[object]) -> None:
    try:
        async for what in said:
            await conversation.say(what)
    except Exception:
        conversation.leave()
        raise


def _stopped(vm: Vm) -> GuestError:
    how = "was stopped"
    if vm.state is VmState.HIBERNATED:
        how = "was hibernated"
    elif vm.error:
        return GuestError(
            Reason.VM_ENDED, f"VM {vm.name!r} died in the middle of it: {vm.error}", f"ingle vm start {vm.name}"
        )
    return GuestError(Reason.VM_ENDED, f"VM {vm.name!r} {how} in the middle of it", f"ingle vm start {vm.name}")

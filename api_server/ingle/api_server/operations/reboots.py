"""Guests that have rebooted and are to be started again: in the journal until they were, whatever becomes of the
server meanwhile."""

from ingle.api_server.model.ids import new_op_id
from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.ports.store.journal import Journal, JournalEntry
from ingle.api_server.steps.reboot import Reboot

MOST = 5
PERIOD_SECONDS = 300.0
"""One that reboots more often than that would go on for ever."""


class Reboots:
    """Those that this server knows of, by VM id."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._op_ids: dict[str, str] = {}
        self._over: set[tuple[str, str]] = set()
        self._times: dict[str, list[float]] = {}

    async def add(self, vm_id: str) -> None:
        """It has; once more is fine. Raises HostProblem(DISK_FULL)."""
        if vm_id not in self._op_ids:
            entry = JournalEntry(new_op_id(), Resource(ResourceKind.VM, vm_id), Reboot.name)
            await self._journal.intend(entry)
            self._op_ids[vm_id] = entry.op_id

    def discard(self, vm_id: str) -> None:
        """Somebody else has the word on it: it is started or stopped. What is journalled is ended by who was to start
        it; what an earlier server has journalled, by `tidy`."""
        if op_id := self._op_ids.pop(vm_id, None):
            self._over.add((vm_id, op_id))

    async def tidy(self) -> None:
        """Have nothing in the journal of those that are not to be started any more."""
        for vm_id, op_id in list(self._over):
            await self.end(vm_id, op_id)

    def known(self) -> list[str]:
        """All."""
        return list(self._op_ids)

    def op_id(self, vm_id: str) -> str | None:
        """The operation that starts it again; None when nobody is to."""
        return self._op_ids.get(vm_id)

    async def end(self, vm_id: str, op_id: str) -> None:
        """It was started again, or is not to be."""
        await self._journal.forget(JournalEntry(op_id, Resource(ResourceKind.VM, vm_id), Reboot.name))
        self._over.discard((vm_id, op_id))
        if self._op_ids.get(vm_id) == op_id:
            del self._op_ids[vm_id]

    def too_many(self, vm_id: str, now: float) -> bool:
        """Whether this one, at `now`, is one more than there may be."""
        since = now - PERIOD_SECONDS
        self._times = {vm: times for vm, times in self._times.items() if times[-1] > since}
        times = [time for time in self._times.get(vm_id, ()) if time > since]
        if len(times) == MOST:
            self._times.pop(vm_id)  # who starts it by hand is given as many again
            return True
        self._times[vm_id] = [*times, now]
        return False

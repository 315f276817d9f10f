"""What a server that starts has started: guests that rebooted while none was there, and VMs that are up when the host
is, each in its turn."""

import asyncio
import logging
from collections import defaultdict

from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.vm import Vm
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.start_vm import StartVm
from ingle.api_server.ports.store.vms import VmStore

log = logging.getLogger(__name__)

_IN_VAIN = "it was to be started with the host, and could not be"


class AutoStart:
    """Recovery has found out which they are. They are in the journal until they were started, or could not be: so one
    that has its turn when the server ends is started by the next."""

    def __init__(self, vms: VmStore, fleet: Fleet, start: StartVm) -> None:
        self._vms = vms
        self._fleet = fleet
        self._start = start

    async def run(self) -> None:
        """Start them; those whose turn is the same at the same time. One that can't be, which the VM tells of, holds up
        no other."""
        turns: defaultdict[int, list[Vm]] = defaultdict(list)
        there = {vm.id: vm for vm in await self._vms.all()}
        for vm_id in self._fleet.reboots.known():
            if vm_id in there:
                turns[there[vm_id].settings.auto_start].append(there[vm_id])
            elif op_id := self._fleet.reboots.op_id(vm_id):
                await self._fleet.reboots.end(vm_id, op_id)
        for turn in sorted(turns):
            await asyncio.gather(*map(self._start_one, turns[turn]))

    async def _start_one(self, vm: Vm) -> None:
        try:
            begin = self._start.boot_again
            starting = await (begin(vm.id, _IN_VAIN) if vm.settings.auto_start else begin(vm.id))
            async for _ in starting.progress.watch():  # whoever does not wait for it any more does not end it
                pass
        except IngleError as error:  # the server stops, say, and the journal tells the next one
            log.warning("a VM is not started by itself: %s", error.message, extra={"vm": vm.id})
        except Exception:
            log.exception("a VM is not started by itself", extra={"vm": vm.id})

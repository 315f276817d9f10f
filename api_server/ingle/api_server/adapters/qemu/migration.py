"""A migration out of a QEMU, or into one, through a descriptor of an ordinary file."""

import asyncio
import errno
import os
import time
from contextlib import suppress
from typing import Any

from ingle.api_server.adapters.qemu.qmp import Qmp
from ingle.api_server.model.errors import Reason, ToolFailed

_FILE = "memory"  # QEMU's name of the descriptor
_UNBOUNDED = 2**50  # bytes a second: without being told, QEMU leaves room for others on a network
_LEAST_SECONDS = 60.0
_LEAST_SPEED = 8 * 2**20  # bytes a second, of a host that is busy and emulated
_CANCEL_SECONDS = 10.0
_FIRST_LOOK_SECONDS = 0.001
_LATER = 1.1  # it is asked again when it has taken a tenth longer
_LONGEST_LOOK_SECONDS = 0.1
_OVER = frozenset({"completed", "failed", "cancelled"})
_FULL = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT)}


async def save(qmp: Qmp, descriptor: int) -> None:
    """Write a guest that stands still.

    Raises OSError where the disk is full, ToolFailed(VMM_FAILED). Then, and when cancelled, it can go on."""
    status = (await qmp.execute("query-status"))["status"]
    if status == "running":
        raise ToolFailed(Reason.VMM_FAILED, "a guest that runs can't be saved")
    if status == "postmigrate":
        # After one migration QEMU has given its disks away. It takes them back, and migrates again, when it goes on.
        try:
            await qmp.execute("cont")
        finally:
            await qmp.execute("stop")
    seconds = await _prepare(qmp, all_memory=True)
    await qmp.pass_file(descriptor, _FILE)
    try:
        await qmp.execute("migrate", uri=f"fd:{_FILE}")
        outcome = await _outcome(qmp, seconds)
    except BaseException:
        await _cancel(qmp)
        raise
    if outcome["status"] != "completed":
        why = str(outcome.get("error-desc", outcome["status"]))
        for text, number in _FULL.items():
            if text in why:
                raise OSError(number, text)
        raise ToolFailed(Reason.VMM_FAILED, f"QEMU can't write the guest's memory: {why}")


async def load(qmp: Qmp, descriptor: int, *, all_memory: bool = True) -> None:
    """Read what `save` has written, into a QEMU that waits for it; not `all_memory`: what belongs to a memory that this
    has in a file. It stands still then.

    Raises ToolFailed(VMM_FAILED); QEMU may be gone."""
    seconds = await _prepare(qmp, all_memory=all_memory)
    await qmp.pass_file(descriptor, _FILE)
    await qmp.execute("migrate-incoming", uri=f"fd:{_FILE}")
    outcome = await _outcome(qmp, seconds)
    if outcome["status"] != "completed":
        raise ToolFailed(Reason.VMM_FAILED, f"QEMU can't read a guest's memory: {outcome['status']}")


async def _prepare(qmp: Qmp, *, all_memory: bool) -> float:
    """How many seconds it may take. A guest is told by us where it is, if anywhere new; QEMU would tell its neighbours
    the address it once had."""
    capability = {"capability": "x-ignore-shared", "state": not all_memory}
    memory, *_ = await asyncio.gather(  # all asked before the first answer comes
        qmp.execute("query-memory-size-summary"),
        qmp.execute("migrate-set-capabilities", capabilities=[capability]),
        qmp.execute("migrate-set-parameters", **{"max-bandwidth": _UNBOUNDED, "announce-rounds": 0}),
    )
    size: int = memory["base-memory"]
    return _LEAST_SECONDS + size / _LEAST_SPEED


async def _outcome(qmp: Qmp, seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    pause = _FIRST_LOOK_SECONDS
    while True:
        told: dict[str, Any] = await qmp.execute("query-migrate")
        if told.get("status") in _OVER:
            return told
        if time.monotonic() > deadline:
            raise ToolFailed(Reason.VMM_FAILED, f"a guest's memory took QEMU longer than {seconds:.0f} s")
        await asyncio.sleep(pause)
        pause = min(pause * _LATER, _LONGEST_LOOK_SECONDS)


async def _cancel(qmp: Qmp) -> None:
    """Whatever cancels us waits until QEMU writes no more."""
    with suppress(ToolFailed):
        await qmp.execute("migrate_cancel")
        await _outcome(qmp, _CANCEL_SECONDS)

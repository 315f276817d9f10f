"""What VMs were before a change that is under way, and may be again."""

import aiosqlite

from ingle.api_server.model.errors import Conflict, Reason
from ingle.api_server.model.vm import Vm

_SLEEP = "state, state_since, asleep_since, disk_generation, address, address6, token"
_COLUMNS = f"name, settings, snapshot_id, {_SLEEP}"


async def remember(db: aiosqlite.Connection, vm_id: str) -> None:
    """Of several changes, what it was before the first."""
    await db.execute(
        f"INSERT OR IGNORE INTO former (vm_id, {_COLUMNS}) SELECT id, {_COLUMNS} FROM vms WHERE id = ?", (vm_id,)
    )


async def restore(db: aiosqlite.Connection, vm_id: str) -> None:
    """Nothing remembered is fine. Who has seen the change meanwhile must not take what is now for it: so the generation
    goes on. One that has hibernated before, and whose memory nobody has touched, does so again; its guest knows that
    token."""
    await db.execute(
        """
        UPDATE vms SET name = former.name, settings = former.settings, snapshot_id = former.snapshot_id,
        generation = generation + 1 FROM former WHERE former.vm_id = vms.id AND vms.id = ?
        """,
        (vm_id,),
    )
    await db.execute(
        f"""
        UPDATE vms SET ({_SLEEP}) = (SELECT {_SLEEP} FROM former WHERE vm_id = vms.id) WHERE id = ?1
        AND state IN ('stopped', 'error')
        AND EXISTS (SELECT 1 FROM former WHERE vm_id = ?1 AND former.state = 'hibernated')
        """,
        (vm_id,),
    )
    await forget(db, vm_id)


async def forget(db: aiosqlite.Connection, vm_id: str) -> None:
    """It is what it is now."""
    await db.execute("DELETE FROM former WHERE vm_id = ?", (vm_id,))


async def check_name_free(db: aiosqlite.Connection, vm: Vm) -> None:
    """Raise Conflict(NAME_TAKEN) when another VM of its owner may have the name back: undoing a change must not meet
    anybody."""
    sql = "SELECT 1 FROM former JOIN vms ON id = vm_id WHERE former.name = ? AND owner = ? AND id != ?"
    if list(await db.execute_fetchall(sql, (vm.name, vm.owner, vm.id))):
        raise name_taken(vm.name)


def name_taken(name: str) -> Conflict:
    """Another VM has it."""
    return Conflict(Reason.NAME_TAKEN, f"there is a VM named {name!r} already", f"ingle vm show {name}")

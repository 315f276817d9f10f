"""Numbers of networks, and slots of the VMs in them."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import aiosqlite

from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.model.network import FIRST_HOST, LAST_HOST, MOST_NETWORKS, SLOTS_PER_NETWORK, VMS_PER_NETWORK


async def free_slot(db: aiosqlite.Connection, owner: int, network: str) -> int:
    """The lowest free slot of an owner's network, which gets the lowest free number when it is new.

    Raises HostProblem(ADDRESSES_EXHAUSTED)."""
    base = await _number(db, owner, network) * SLOTS_PER_NETWORK
    taken = await _integers(db, "SELECT slot FROM vms WHERE slot >= ? AND slot < ?", base, base + SLOTS_PER_NETWORK)
    for slot in range(base + FIRST_HOST, base + LAST_HOST + 1):
        if slot not in taken:
            return slot
    raise HostProblem(
        Reason.ADDRESSES_EXHAUSTED,
        f"network {network!r} has its {VMS_PER_NETWORK} VMs",
        "delete some, or use another --network",
    )


def vms_by_network(path: Path) -> Mapping[tuple[int, str], int]:
    """How many VMs there are in each shared network, by owner and name. A database that isn't there, or can't be read,
    has none."""
    sql = "SELECT owner, network, count(*) FROM vms WHERE slot IS NOT NULL GROUP BY owner, network"
    try:
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as db:
            return {(owner, network): count for owner, network, count in db.execute(sql)}
    except sqlite3.Error:
        return {}


async def forget_empty(db: aiosqlite.Connection) -> None:
    """Networks without VMs give up their numbers."""
    await db.execute("DELETE FROM networks WHERE (owner, name) NOT IN (SELECT owner, network FROM vms)")


async def _number(db: aiosqlite.Connection, owner: int, network: str) -> int:
    found = await _integers(db, "SELECT number FROM networks WHERE (owner, name) = (?, ?)", owner, network)
    if found:
        return found.pop()
    taken = await _integers(db, "SELECT number FROM networks")
    for number in range(MOST_NETWORKS):
        if number not in taken:
            await db.execute("INSERT INTO networks (owner, name, number) VALUES (?, ?, ?)", (owner, network, number))
            return number
    raise HostProblem(Reason.ADDRESSES_EXHAUSTED, f"there are {MOST_NETWORKS} networks already", "ingle vm list")


async def _integers(db: aiosqlite.Connection, sql: str, *parameters: object) -> set[int]:
    return {row[0] for row in await db.execute_fetchall(sql, parameters)}

"""Settings of a VM as they are stored: strict, with a version, and what the version before had stored."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.adapters.sqlite.settings import VERSION, decoded, encoded
from ingle.api_server.model.errors import Conflict, HostProblem, Reason
from ingle.api_server.model.network import Protocol, PublishedPort
from ingle.api_server.model.vm import Acceleration, Init, Keeper, LiveVmm, Vm, VmSettings, VmState
from unit.api_server.vmms import ME

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
FULL = VmSettings(
    image_id="ab" * 32,
    image_name="debian:bookworm",
    kernel_id="cd" * 32,
    kernel_name="debian",
    engine="qemu",
    acceleration=Acceleration.AUTO,
    disk_backend="qcow2",
    vcpus=1,
    memory_bytes=2**29,
    disk_bytes=2**33,
    env={"A": "b=c\n", "LANG": "ü\"'"},
    ports=(PublishedPort(80, 1, Protocol.UDP, "192.0.2.1"), PublishedPort(81, 2)),
    init=Init.IMAGE,
    ssh_keys=("a key", "another"),
)
"""What the database of the version before has."""

LABELLED = replace(FULL, labels={"team": "web", "ü": ""})
_BEFORE = Path(__file__).parent / "databases" / "schema-7.sql"
"""A dump of what the last version with a column a setting had written."""


async def test_a_database_of_the_version_before_is_taken_over_with_everything_in_it(tmp_path: Path) -> None:
    path = tmp_path / "ingle.db"
    with sqlite3.connect(path) as db:
        db.executescript(_BEFORE.read_text())
    db.close()
    bare = replace(  # what the second one was
        FULL,
        network="backend",
        nat=False,
        env={},
        ports=(),
        ssh_keys=(),
        init=Init.AGENT,
        acceleration=Acceleration.TCG,
    )
    live = LiveVmm(4242, 99, Acceleration.TCG, NOW, "b")
    demo = Vm("0123456789ab", "demo", NOW, FULL, VmState.STOPPED, state_since=NOW)
    later = NOW + timedelta(seconds=1)
    shared = Vm("ba9876543210", "shared", later, bare, VmState.RUNNING, state_since=later, slot=2, vmm=live)
    shared = replace(shared, address="10.0.0.2", address6="fd00::2")
    async with SqliteStore(path) as store:
        assert await store.vms.all() == [demo, shared]
        assert await store.vms.token(demo.id) == bytes(range(32))
        assert await store.vms.keepers() == [(demo.id, Keeper(41, 7)), (shared.id, None)]
        assert store.vms.connected() == [shared]
        with pytest.raises(Conflict, match="used by VMs demo, shared"):
            await store.images.delete(FULL.image_id, ME)
        await store.vms.insert(replace(shared, id="0" * 12, name="third", vmm=None, state=VmState.CREATING), bytes(32))
        assert await store.vms.slot("0" * 12) == 3
        await store.vms.delete(shared.id)
        assert await store.vms.keepers() == [(demo.id, Keeper(41, 7))]


def test_settings_come_back_as_they_were() -> None:
    assert decoded(encoded(LABELLED)) == LABELLED


def test_what_was_stored_before_there_was_a_setting_has_its_default() -> None:
    stored = json.loads(encoded(FULL))
    del stored["ssh_keys"]
    assert decoded(json.dumps(stored)) == replace(FULL, ssh_keys=())


def _without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda stored: stored.pop(name)


def _with(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda stored: stored.update({name: value})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_with("v", VERSION + 1), f"version {VERSION + 1}; this one knows {VERSION}"),
        (_without("v"), "no JSON object with a version"),
        (_without("vcpus"), "vcpus missing or not known"),
        (_with("colour", "red"), "colour missing or not known"),
        (_with("vcpus", "1"), "'1' is no int"),
        (_with("vcpus", True), "True is no int"),
        (_with("nat", 1), "1 is no bool"),
        (_with("init", "systemd"), "'systemd' is no Init"),
        (_with("env", ["A"]), "is no dict"),
        (_with("env", {"A": 1}), "1 is no str"),
        (_with("ports", [[80, 1, "tcp"]]), "is no dict"),
        (_with("ports", [{"host_port": 80}]), "vm_port missing"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused(change: Callable[[dict[str, Any]], object], told: str) -> None:
    stored = json.loads(encoded(FULL))
    change(stored)
    with pytest.raises(HostProblem, match=told) as refused:
        decoded(json.dumps(stored))
    assert refused.value.reason is (Reason.BAD_VERSION if "knows" in told else Reason.INTERNAL)


def test_every_setting_is_stored() -> None:
    assert set(json.loads(encoded(FULL))) == {"v", *(field.name for field in fields(VmSettings))}

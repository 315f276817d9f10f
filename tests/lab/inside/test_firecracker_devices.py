"""Snapshots and forks of VMs in Firecracker whose disks are devices."""

from collections.abc import Iterator

import pytest

from harness import Server
from integration import test_snapshots
from lab.inside.commands import User
from lab.inside.installed import installed_server
from lab.inside.test_firecracker_memory import kind
from slow import slow

__all__ = ("kind",)

pytestmark = slow

globals().update({name: test for name, test in vars(test_snapshots).items() if name.startswith("test_")})


@pytest.fixture
def server(member: User) -> Iterator[Server]:
    """Where a test has a server of its own elsewhere."""
    with installed_server(member, engine="firecracker", disk_backend="dm-snapshot") as server:
        yield server

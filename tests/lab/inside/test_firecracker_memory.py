"""Snapshots, forks and sleep of VMs in Firecracker whose disks share blocks: the suites of tests/integration, with the
server of an install."""

from collections.abc import Iterator

import pytest

from harness import NewServer, Server
from integration import test_random_kills, test_sleep, test_snapshots
from integration.engine_guests import FIRECRACKER, EngineKind
from integration.test_sleep import vm
from lab.inside.commands import User
from lab.inside.installed import installed_server, on_shared_blocks
from slow import slow

__all__ = ("vm",)

pytestmark = slow

MOVES = 24

for suite in (test_snapshots, test_sleep, test_random_kills):
    globals().update({name: test for name, test in vars(suite).items() if name.startswith("test_")})


@pytest.fixture(scope="module")
def kept_on_shared_blocks(member: User) -> Iterator[None]:
    with on_shared_blocks():
        yield


@pytest.fixture
def server(member: User, kept_on_shared_blocks: None) -> Iterator[Server]:
    """Where a test has a server of its own elsewhere."""
    with installed_server(member, engine="firecracker", disk_backend="reflink", warm="false") as server:
        yield server


@pytest.fixture
def new_server(server: Server) -> NewServer:
    return lambda: server


@pytest.fixture(scope="session")
def kind() -> EngineKind:
    return FIRECRACKER


@pytest.fixture
def moves() -> int:
    return MOVES

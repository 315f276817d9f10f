"""What a guest may rely on, in Firecracker: the contract of tests/engine_contract, with the server of an install."""

from collections.abc import Iterator

import pytest

from engine_contract import test_cycles, test_promises
from engine_contract.conftest import certificate, world
from engine_contract.test_cycles import vm
from harness import Server
from lab.inside.commands import User
from lab.inside.installed import installed_server, on_shared_blocks
from slow import slow

__all__ = ("certificate", "vm", "world")

pytestmark = slow

for suite in (test_promises, test_cycles):
    globals().update({name: test for name, test in vars(suite).items() if name.startswith("test_")})


@pytest.fixture(scope="module")
def server(member: User) -> Iterator[Server]:
    """One whose VMs can begin with a memory: those with devices for disks can't."""
    with on_shared_blocks(), installed_server(member, warm="false") as server:
        yield server


@pytest.fixture(scope="module")
def engine() -> str:
    return "firecracker"

"""A live server for the contract tests. No VM is started: what is tested here is what every call has in common."""

from collections.abc import Iterator

import pytest

from harness import Server, running_server, server_directory


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with server_directory() as root, running_server(root) as server:
        yield server

"""One client, two servers: a system's and a user's, or those of two projects."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from harness import Server, running_server, server_directory

# RFC 9113, 3.4: what a client begins with; an empty SETTINGS frame. The server answers with its own.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


@pytest.fixture
def two() -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        servers = [stack.enter_context(running_server(stack.enter_context(server_directory()))) for _ in range(2)]
        yield servers[0], servers[1]


def test_connections_of_one_process_to_two_servers_are_never_in_each_others_way(two: tuple[Server, Server]) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            for server in two:
                connection = stack.enter_context(socket.socket(socket.AF_UNIX))
                connection.connect(str(server.socket))
                connection.sendall(_GREETING)
                assert connection.recv(9)

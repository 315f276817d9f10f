"""What a caller that speaks HTTP/2 as no gRPC client does costs the others."""

import socket
import time
from contextlib import suppress

import grpc
import pytest
from h2.connection import H2Connection

from harness import Server
from ingle.v1 import system_pb2


@pytest.mark.parametrize("path", [b"/ingle.v1.SystemService/\xf4Ping", b"\xff", b"", b"/" + b"x" * 5000])
def test_a_method_that_is_no_text_ends_the_server_for_nobody(server: Server, path: bytes) -> None:
    client = H2Connection()
    client.initiate_connection()
    headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"ingle")]
    client.config.validate_outbound_headers = False
    client.send_headers(1, [*headers, (b"te", b"trailers"), (b"content-type", b"application/grpc")])
    client.send_data(1, bytes(5), end_stream=True)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(server.socket))
        caller.sendall(client.data_to_send())
        caller.settimeout(1)
        with suppress(TimeoutError, ConnectionError):
            while caller.recv(65536):
                """Until it has been dealt with."""
    deadline = time.monotonic() + 30
    while True:
        try:
            server.system.Ping(system_pb2.PingRequest(), timeout=5, wait_for_ready=True)
        except grpc.RpcError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            break
    assert server.list() == []

"""gRPC calls by hand, also such that no client would make."""

from typing import Any

from h2.connection import H2Connection

BREAKING = b"/\xff"
"""A method that ends the loop of gRPC's server: it is no UTF-8."""


def calling(method: bytes = b"/ingle.v1.SystemService/Ping") -> H2Connection:
    """A client that has made a call."""
    client = H2Connection()
    client.initiate_connection()
    headers = {b":method": b"POST", b":scheme": b"http", b":path": method, b":authority": b"ingle"}
    client.send_headers(1, [*headers.items(), (b"te", b"trailers"), (b"content-type", b"application/grpc")])
    client.send_data(1, bytes(5), end_stream=True)
    return client


class Admitted:
    """The context of a call that came through the gate, as far as servicers look at it: root's."""

    def peer(self) -> str:
        return "unix-abstract:ingle-gate/uid=0,admin=1,pid=1,n=00"


ADMITTED: Any = Admitted()

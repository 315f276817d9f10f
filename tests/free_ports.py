"""Ports of the host that nobody has."""

import socket


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """One of the loopback's that was free a moment ago."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

"""A guest resolves names where its host asks by IPv6 alone."""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from harness import Server, cloned_directory
from ingle.v1 import vm_pb2


@pytest.fixture
def nameserver() -> Iterator[None]:
    """On ::1, and everything is at 192.0.2.7."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listening:
        listening.bind(("::1", 53))

        def serve() -> None:
            while True:
                question, asker = listening.recvfrom(512)
                if not question:
                    return
                end = question.index(b"\0", 12) + 5
                wanted_a = question[end - 4 : end - 2] == b"\0\1"
                answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("192.0.2.7") if wanted_a else b""
                header = question[:2] + struct.pack("!5H", 0x8180, 1, bool(answer), 0, 0)
                listening.sendto(header + question[12:end] + answer, asker)

        thread = Thread(target=serve)
        thread.start()
        yield
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", ("::1", 53))
        thread.join()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can have another /etc/resolv.conf, and port 53")
@pytest.mark.usefixtures("nameserver")
def test_a_guest_resolves_names_where_its_host_asks_by_ipv6_alone(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver ::1\n")
    mount = f'mount --bind {tmp_path}/resolv.conf "$(realpath /etc/resolv.conf)" && exec "$@"'
    with cloned_directory(prepared) as root:
        server = Server(root)
        server.argv = ["unshare", "--mount", "sh", "-c", mount, "sh", *server.argv]
        server.start()
        try:
            vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
            code, out, err = server.run(vm.id, "getent", "ahostsv4", "host.example")
            assert (code, err) == (0, b"")
            assert b"192.0.2.7" in out
            server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
        finally:
            assert server.stop() == 0, server.said()

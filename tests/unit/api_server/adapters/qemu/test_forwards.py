"""What is made of a VMM's forwarded ports, with a process that listens as QEMU does, on a queue for one."""

import asyncio
import signal
import socket
import sys
from pathlib import Path
from unittest.mock import AsyncMock

from ingle.api_server.adapters.qemu.vmm import QemuVmm
from ingle.api_server.host.process import Process
from ingle.api_server.ports.engine import VmPaths

_CALLERS = 20
_LISTENER = """
import signal, socket, sys
listener = socket.create_server(("127.0.0.1", 0), backlog=1)
print(listener.fileno(), listener.getsockname()[1], file=sys.stderr, flush=True)
signal.pause()
"""


def waiting_for(port: int) -> int:
    """Connections that are made and not accepted (proc(5), net/tcp: state 0A is LISTEN, then the queues)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
            return int(fields[4].partition(":")[2], 16)
    raise AssertionError(f"nobody listens on {port}")


async def test_many_may_call_a_published_port_at_once(tmp_path: Path) -> None:
    paths = VmPaths(tmp_path, tmp_path)
    process = Process.spawn([sys.executable, "-c", _LISTENER], directory=tmp_path, stderr=paths.vmm_log)
    try:
        while not (said := paths.vmm_log.read_text()).endswith("\n"):
            await asyncio.sleep(0.005)
        descriptor, port = map(int, said.split())
        usernet = f"  TCP[HOST_FORWARD]  {descriptor}  127.0.0.1 {port}  10.0.2.15  80  0  0\r\n"

        async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'{"QMP": {}}\n')
            while asked := await reader.readline():
                told = b'"%s"' % usernet.encode("unicode_escape")
                writer.write(b'{"return": %s}\n' % (b'{"status": "running"}' if b"query-status" in asked else told))

        async with await asyncio.start_unix_server(control, paths.control_socket):
            vmm = await QemuVmm(process, paths, None, AsyncMock()).connect("0" * 12, bytes(32), 10.0)
            callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(_CALLERS)]
            assert waiting_for(port) == _CALLERS
            for caller in callers:
                caller.close()
            process.signal(signal.SIGKILL)
            assert await vmm.wait_gone()
            await vmm.close()
    finally:
        if not process.gone:
            process.signal(signal.SIGKILL)
            await process.wait()

"""A server of many users, as a system install has, over the directories of the environment and with fake engines.

python -m contract.shared_server ENGINE[,ENGINE...]: as root. `as_user` gives its callers a uid.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from harness import Server
from ingle.api_server import main, reachable
from ingle.api_server.config import Paths
from ingle.api_server.gate import Callers
from ingle.testing.serve import engines

GROUP, ADMINS = 54321, 54322

_RELAY = """
import os, socket, sys, threading
uid, path, server = int(sys.argv[1]), sys.argv[2], sys.argv[3]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(64)
os.setgroups([int(group) for group in sys.argv[4:]]); os.setgid(uid); os.setuid(uid)
print("listening", flush=True)
def carry(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for each in (source, sink):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
while True:
    client, _ = listener.accept()
    behind = socket.socket(socket.AF_UNIX)
    try:
        behind.connect(server)
    except OSError:
        client.close()
        continue
    for pair in ((client, behind), (behind, client)):
        threading.Thread(target=carry, args=pair, daemon=True).start()
"""


def shared_server(root: Path, engine: str) -> Server:
    """Not started yet."""
    root.chmod(0o755)
    (root / "public").mkdir(mode=0o755)
    server = Server(root, {"PYTHONPATH": os.pathsep.join(sys.path)})
    server.argv = [sys.executable, "-m", "contract.shared_server", engine]
    server.socket = root / "public" / "api.sock"
    server.env["INGLE_SOCKET"] = str(server.socket)
    return server


@contextmanager
def as_user(server: Server, uid: int, *groups: int) -> Iterator[grpc.Channel]:
    """A channel whose calls are those of a process with that uid: one that carries bytes for us is."""
    path = server.root / f"as-{uid}"
    relay = subprocess.Popen(
        [sys.executable, "-c", _RELAY, str(uid), str(path), str(server.socket), *map(str, groups)],
        stdout=subprocess.PIPE,
    )
    try:
        assert relay.stdout is not None
        assert relay.stdout.readline() == b"listening\n"
        with grpc.insecure_channel(f"unix:{path}") as channel:
            yield channel
    finally:
        relay.kill()
        relay.communicate()


if __name__ == "__main__":
    os.setgid(GROUP)
    vars(reachable)["_callers"] = lambda config: Callers(os.getuid(), GROUP, ADMINS)
    Paths.of_system = staticmethod(lambda: Paths.of(os.environ))  # type: ignore[method-assign]
    sys.exit(main.main(["serve", "--system"], engines=engines))

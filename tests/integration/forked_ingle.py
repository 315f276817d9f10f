"""`ingle` in a shell's PATH, each a process of its own that is forked from one with all modules loaded: that is most of
the time of a short command. It has its caller's standard streams, environment and directory, but not its terminal's
signals: what goes on until Ctrl-C is to be the real one.

python -m integration.forked_ingle DIRECTORY: puts DIRECTORY/ingle there, and serves it until it is killed.
"""

import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Never

from contract.cli.forked import load_all
from ingle.cli.__main__ import main

_STREAMS = struct.Struct("3i")
_MOST_BYTES = 1 << 18
_SECONDS = 60

_COMMAND = """#!{python} -IS
import _socket, json, os, sys
with_files = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, bytes({streams}))]
asked = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
server.connect({path!r})
server.sendmsg([asked], with_files)
os._exit(int(server.recv(16) or b"70"))
"""


def serve(directory: Path) -> Never:
    """Take commands until somebody kills this process."""
    load_all()
    path = directory / "forked.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
        command = directory / "ingle.new"
        streams = list(_STREAMS.pack(0, 1, 2))
        command.write_text(_COMMAND.format(python=sys.executable, streams=streams, path=str(path)))
        command.chmod(0o755)
        command.rename(directory / "ingle")
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _run(connection)
            connection.close()


def _run(connection: socket.socket) -> Never:
    data, streams, _, _ = socket.recv_fds(connection, _MOST_BYTES, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Those that there were know what the server's own were like: whether they can seek, say.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1 if os.isatty(1) else -1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.alarm(_SECONDS)
    argv, environment, directory = json.loads(data)
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = ["ingle", *argv]
    code = 70
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.stdout.flush()
        connection.send(str(code).encode())
        os._exit(code)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

"""`ingle`, for users that are told, with its modules loaded: `python preloaded.py SOCKET`, as root.

An emulated processor takes three seconds to load them, which is most of a short command. Each command is a process of
its own all the same, with a user's ids, environment, directory and standard streams, and runs the same main().

A connection brings a request, JSON with "user", "argv", "env" and "cwd", along with descriptors for stdin, stdout and
stderr; it is answered with the pid, and with the exit code in a message of its own. It is closed when all is done.
"""

import importlib
import json
import os
import pkgutil
import pwd
import signal
import socket
import sys
from typing import Never

import ingle.cli
from ingle.cli.__main__ import main

_STREAMS = 3
_REQUEST_BYTES = 1 << 18


def serve(path: str) -> Never:
    """Take requests until somebody kills this process."""
    for module in pkgutil.walk_packages(ingle.cli.__path__, "ingle.cli."):
        importlib.import_module(module.name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _run(connection)
            connection.close()


def _run(connection: socket.socket) -> Never:
    data, descriptors, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, _STREAMS)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(data)
    user = pwd.getpwnam(request["user"])
    os.setsid()
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["ingle", *request["argv"]]
    connection.send(str(os.getpid()).encode())
    try:
        main()
    except SystemExit as ended:
        sys.stdout.flush()
        connection.send(str(ended.code or 0).encode())
        raise


if __name__ == "__main__":
    serve(sys.argv[1])

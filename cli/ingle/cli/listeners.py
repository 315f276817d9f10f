"""Sockets of this host that wait for whoever shall be forwarded."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from ingle.cli.errors import CliError, failed
from ingle.cli.forward_rules import Local, Rule

_BACKLOG = 128
_LONGEST_PATH = 107  # unix(7), without the NUL


@dataclass(frozen=True)
class Listener:
    """A socket that listens; `rule.local.port` is what it has got."""

    rule: Rule
    socket: socket.socket


@contextmanager
def listening(rules: Sequence[Rule]) -> Iterator[list[Listener]]:
    """Listen on all of them, or raise CliError and on none. Sockets in the file system go at the end."""
    with ExitStack() as opened:
        yield [opened.enter_context(_listening(rule)) for rule in rules]


@contextmanager
def _listening(rule: Rule) -> Iterator[Listener]:
    sock = _bound(rule.local)
    with sock:
        sock.setblocking(False)
        if rule.local.path:
            try:
                yield Listener(rule, sock)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(rule.local.path)
        else:
            yield Listener(replace(rule, local=replace(rule.local, port=sock.getsockname()[1])), sock)


def _bound(local: Local) -> socket.socket:
    if len(os.fsencode(local.path)) > _LONGEST_PATH:
        raise failed("PATH_TOO_LONG", f"{local.path} is longer than the {_LONGEST_PATH} bytes of a socket's path")
    former = os.umask(0o077)  # from birth on nobody else's
    try:
        if local.path:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.bind(local.path)
                sock.listen(_BACKLOG)
            except BaseException:
                sock.close()
                raise
            return sock
        family = socket.AF_INET6 if ":" in local.address else socket.AF_INET
        return socket.create_server((local.address, local.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise _not_bound(local, error) from error
    finally:
        os.umask(former)


def _not_bound(local: Local, error: OSError) -> CliError:
    if error.errno == errno.EADDRINUSE:
        if local.path:
            return failed("IN_USE", f"{local} is there already", f"rm {local}, if nobody listens on it any more")
        return failed("IN_USE", f"{local} is in use on this host", "choose another local port, or 0 for any free one")
    if error.errno == errno.EACCES and local.port:
        return failed(
            "INVALID_ARGUMENT", f"only root may listen on {local}", "choose a local port from 1024 on, or 0 for any"
        )
    why = os.strerror(error.errno) if error.errno else str(error)
    return failed("INVALID_ARGUMENT", f"can't listen on {local}: {why}")

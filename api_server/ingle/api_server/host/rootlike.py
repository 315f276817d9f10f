"""Doing what needs root's powers over files, as root or as an ordinary user.

An ordinary user has them in a user namespace in which ids from /etc/subuid are mapped (see user_namespaces(7)). What
is made in there belongs to those ids outside, so it can be removed only from inside.
"""

import asyncio
import os
from pathlib import Path

from ingle.api_server.host import files
from ingle.api_server.host.threads import in_thread
from ingle.api_server.host.tool import Tools, installed
from ingle.api_server.model.errors import ToolFailed

# Own mounts and pids too, so that mounts go with the last process, and all processes with the first.
_PRIVATE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_AS_ROOT = ("--map-root-user", "--map-auto")

# Where user namespaces are refused, unshare leaves a child behind that waits for ever and holds our end of its stderr.
_TRIAL_SECONDS = 10.0


async def namespace(tools: Tools) -> tuple[str, ...] | None:
    """The command to put before another so that it has root's powers over files, and own mounts and pids; None when
    this user, or this machine, can't have that."""
    if os.getuid() != 0 and not installed("newuidmap"):
        return None
    prefix = _PRIVATE if os.getuid() == 0 else (*_PRIVATE, *_AS_ROOT)
    try:
        async with asyncio.timeout(_TRIAL_SECONDS):
            await tools.run([*prefix, "--", "true"])
    except (ToolFailed, TimeoutError):
        return None
    return prefix


async def remove_tree(tools: Tools, path: Path) -> None:
    """As files.remove_tree, also for what was made in our user namespace."""
    try:
        await in_thread(files.remove_tree, path)
    except PermissionError:
        prefix = await namespace(tools)
        if prefix is None:
            raise
        await tools.run([*prefix, "--", "rm", "-rf", "--", path])

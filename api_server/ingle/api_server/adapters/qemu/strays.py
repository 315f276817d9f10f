"""VMMs that live, found by what they are: when the database is lost, nobody else knows of them."""

import os
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from ingle.api_server.adapters.qemu.command import process_name

_NAME = re.compile(process_name("([0-9a-f]{12})"))


def vmms_below(vms: Path) -> Mapping[str, int]:
    """Pids by VM id: of our VMMs that work in a directory below `vms`, and so are of that state directory."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            argv = Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace").split("\0")
            directory = Path("/proc", entry, "cwd").readlink()
        except OSError:  # it ended while we looked, or is somebody else's
            continue
        names = [value for option, value in pairwise(argv) if option == "-name"]
        match = _NAME.fullmatch(names[0]) if names else None
        if match is not None and directory.parent == vms:
            found[match[1]] = int(entry)
    return found

"""Build hook: a wheel carries our programs in Go for both architectures at ingle/api_server/programs/PROGRAM-ARCH,
and the manual page, which is made of the commands' help."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROGRAMS = ("ingle-agent", "ingle-image-puller")
ARCHITECTURES = ("amd64", "arm64")


class ProgramsBuildHook(BuildHookInterface[Any]):
    """Builds programs with scripts/build_go.sh. An editable install has none: there the server takes build/."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it packs. Raises CalledProcessError when one of them can't be made."""
        if version == "editable":
            return
        root = Path(self.root)
        for program, architecture in product(PROGRAMS, ARCHITECTURES):
            subprocess.run([root / "scripts/build_go.sh", program, architecture], check=True)
            name = f"{program}-{architecture}"
            build_data["force_include"][str(root / "build" / name)] = f"ingle/api_server/programs/{name}"
        build_data["shared_data"][str(_manual(root))] = "share/man/man1/ingle.1"


def _manual(root: Path) -> Path:
    """Made by the command line itself, in a process that finds it and its dependencies."""
    page = root / "build/ingle.1"
    roots = os.pathsep.join(str(root / place) for place in ("cli", "proto/gen", "api_server"))
    program = "from ingle.cli.manual import page; from ingle.version import VERSION; print(page(VERSION), end='')"
    made = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": roots}
    )
    page.write_bytes(made.stdout)
    return page

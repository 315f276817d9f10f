"""The Python packages that are installed in the lab: exactly what constraints.txt has, hash-checked, for the lab's own
Python, whatever the host's is."""

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
_PYTHON = {"python_version": "3.11", "python_full_version": "3.11.2"}
# Debian 12: glibc 2.36.
_PLATFORMS = ("manylinux_2_36", "manylinux_2_34", "manylinux_2_31", "manylinux_2_28", "manylinux2014")
_TARGET = ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11"]
_TARGET += [f"--platform={platform}_x86_64" for platform in _PLATFORMS]


def closure(*wanted: str) -> set[str]:
    """The names of all packages that the requirements `wanted` need, their own included, as .venv knows them."""
    names: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in wanted]
    while waiting:
        requirement, extra = waiting.pop()
        environment = {**_PYTHON, "extra": extra}
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        name = canonicalize_name(requirement.name)
        names.add(name)
        for own_extra in ("", *requirement.extras):
            if (name, own_extra) not in seen:
                seen.add((name, own_extra))
                waiting += [(Requirement(text), own_extra) for text in requires(name) or ()]
    return names


def locked(names: set[str]) -> str:
    """Those parts of constraints.txt that are about `names`."""
    blocks = re.findall(r"^[a-z0-9].*(?:\n[ \t].*)*\n", CONSTRAINTS.read_text(), re.MULTILINE)
    found = {canonicalize_name(re.split(r"[=\[ ]", block)[0]): block for block in blocks}
    if missing := names - found.keys():
        raise LookupError(f"constraints.txt lacks {', '.join(sorted(missing))}: make lock")
    return "".join(block for name, block in sorted(found.items()) if name in names)


def download(requirements: Path, into: Path) -> None:
    """Fetch what a hash-checked requirements file names. Raises CalledProcessError."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, *_TARGET, "--require-hashes", f"--dest={into}", f"--requirement={requirements}"], check=True)

"""What of this checkout goes into the lab: the wheel, as a user would get it, and the tests."""

import hashlib
import io
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

from lab.disk import REPOSITORY

_OTHER_SOURCES = ("guest_agent", "hatch_build.py", "pyproject.toml", "README.md", "scripts/build_agent.sh")
_BESIDE_THE_WHEEL = ("deploy", "pyproject.toml", "scripts", "tests")
_NOT_SOURCES = {"__pycache__", "node_modules"}


def wheel(cache: Path) -> Path:
    """Ingle's wheel, built when a source differs from those of the last one in `cache`. Raises RuntimeError."""
    directory = cache / f"wheel-{_digest()}"
    if not directory.exists():
        for outdated in cache.glob("wheel-*/*"):
            outdated.unlink()
        new = cache / "wheel-new"
        command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(new)]
        built = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)
        if built.returncode != 0:
            raise RuntimeError(f"the wheel can't be built:\n{built.stdout}{built.stderr}")
        new.rename(directory)
    (path,) = directory.iterdir()
    return path


def archive(wheel: Path) -> bytes:
    """A tar archive with the wheel in dist/ and the tests as they are in the checkout."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(wheel, f"dist/{wheel.name}")
        for name in _BESIDE_THE_WHEEL:
            if (REPOSITORY / name).exists():
                archive.add(REPOSITORY / name, name, filter=_source)
    return packed.getvalue()


def _source(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 0
    return None if Path(member.name).name in _NOT_SOURCES else member


def _digest() -> str:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packed = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    digest = hashlib.sha256()
    for root in (*packed["only-include"], *packed.get("force-include", ()), *_OTHER_SOURCES):
        for path in [REPOSITORY / root, *sorted((REPOSITORY / root).rglob("*"))]:
            if path.is_file() and not _NOT_SOURCES & set(path.parts):
                digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]

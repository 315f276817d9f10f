"""What of this checkout goes into the lab: the wheel and the Debian package, as users would get them, and the tests."""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

from harness import exclusively
from lab.disk import REPOSITORY

_OTHER_SOURCES = ("guest_agent", "image_puller", "hatch_build.py", "pyproject.toml", "README.md", "scripts/build_go.sh")
_BESIDE_THE_WHEEL = ("README.md", "deploy", "pyproject.toml", "scripts", "tests")
_NOT_SOURCES = {"__pycache__", "node_modules"}
_OF_THE_PACKAGE = (
    "constraints.txt",
    "scripts/deb",
    "scripts/deb_files.py",
    "scripts/go_licences.py",
    "scripts/debian-packages.txt",
    "scripts/make_deb.sh",
)


def wheel(cache: Path) -> Path:
    """Ingle's wheel, built when a source differs from those of the last one in `cache`. Raises RuntimeError."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    return _built(cache, "wheel", _digest(_sources_of_the_wheel()), command)


def package(cache: Path, wheel: Path) -> Path:
    """The Debian package with `wheel` in it, built when anything in it has changed. Raises RuntimeError."""
    script = str(REPOSITORY / "scripts/make_deb.sh")
    digest = f"{_digest(_OF_THE_PACKAGE)}{wheel.parent.name.removeprefix('wheel')}"
    return _built(cache, "deb", digest, [script], str(wheel))


def _built(cache: Path, kind: str, digest: str, before: list[str], *after: str) -> Path:
    """The one file that a command makes in a directory."""
    directory = cache / f"{kind}-{digest}"
    with exclusively(cache / "lock"):
        if not directory.exists():
            for outdated in cache.glob(f"{kind}-*"):
                shutil.rmtree(outdated)
            new = cache / f"{kind}-new"
            command = [*before, str(new), *after]
            built = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)
            if built.returncode != 0:
                raise RuntimeError(f"the {kind} can't be built:\n{built.stdout}{built.stderr}")
            new.rename(directory)
    (path,) = directory.iterdir()
    return path


def archive(*built: Path) -> bytes:
    """A tar archive with what was built in dist/ and the tests as they are in the checkout."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in built:
            archive.add(path, f"dist/{path.name}")
        for name in _BESIDE_THE_WHEEL:
            if (REPOSITORY / name).exists():
                archive.add(REPOSITORY / name, name, filter=_source)
    return packed.getvalue()


def _source(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 0
    return None if Path(member.name).name in _NOT_SOURCES else member


def _sources_of_the_wheel() -> tuple[str, ...]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packed = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    return (*packed["only-include"], *packed.get("force-include", ()), *_OTHER_SOURCES)


def _digest(names: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for root in names:
        for path in [REPOSITORY / root, *sorted((REPOSITORY / root).rglob("*"))]:
            if path.is_file() and not _NOT_SOURCES & set(path.parts):
                digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]

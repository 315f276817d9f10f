"""What holds for every file of the repository."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = ("proto/gen/", "guest_agent/internal/agentpb/", "proto/ref.binpb")
MOST_LINES = 400

# Where packages come from is the installer's choice, made outside the repository.
REGISTRY_HOSTS = re.compile(
    rb"(pypi|pythonhosted|(deb|security|snapshot)[.]debian|(proxy|sum)[.]golang|registry[.]\w+|(index|registry-1)[.]docker)"
    rb"[.](org|io|com)"
)


@cache
def tracked_files() -> tuple[Path, ...]:
    """The files git knows, less those a generator wrote."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    names = [name for name in listed.split("\0") if name and not name.startswith(GENERATED)]
    return tuple(path for name in names if (path := ROOT / name).is_file())


def relative(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("root", ["api_server", "cli", "host_helper", "proto/gen"])
def test_namespace_package_has_no_init_file(root: str) -> None:
    assert not (ROOT / root / "ingle/__init__.py").exists()


@pytest.mark.parametrize("root", ["api_server", "cli", "host_helper"])
def test_every_package_below_the_namespace_says_what_it_is_for(root: str) -> None:
    packages = {path.parent for path in tracked_files() if path.suffix == ".py" and path.is_relative_to(ROOT / root)}
    assert relative([package for package in sorted(packages) if not (package / "__init__.py").exists()]) == []


def test_modules_are_short_enough_to_read_in_one_go() -> None:
    modules = [path for path in tracked_files() if path.suffix in {".py", ".go", ".sh"}]
    assert relative([path for path in modules if path.read_bytes().count(b"\n") > MOST_LINES]) == []


def test_no_file_names_a_package_registry() -> None:
    assert relative([path for path in tracked_files() if REGISTRY_HOSTS.search(path.read_bytes())]) == []


def test_no_file_names_this_checkout() -> None:
    here = f"{ROOT}/".encode()
    assert relative([path for path in tracked_files() if here in path.read_bytes()]) == []

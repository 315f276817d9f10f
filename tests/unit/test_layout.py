"""What holds for every file of the repository."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = ("proto/gen/", "guest_agent/internal/agentpb/", "proto/ref.binpb", "proto/ref-internal.binpb")
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


# A Path is a name there, which adapters make something of. Some names are ours as well, `resolve` of references.
_TOUCHES = {name for name in dir(Path) if name not in dir(PurePath)} - {"owner", "group", "info", "resolve"}


def touches(module: str) -> Iterator[str]:
    """What in a module's text opens files, asks about them or changes them, or reads a clock."""
    for node in ast.walk(ast.parse(module)):
        if isinstance(node, ast.Attribute) and (node.attr in _TOUCHES or ast.unparse(node) == "datetime.now"):
            yield ast.unparse(node)
        elif isinstance(node, ast.Name) and node.id == "open":
            yield "open"


@pytest.mark.parametrize("package", ["model", "ports", "steps", "operations", "pipeline.py"])
def test_the_domain_touches_no_file_and_reads_no_clock(package: str) -> None:
    """The modules that could are forbidden by import-linter; what a Path can do is not seen by that."""
    root = ROOT / "api_server/ingle/api_server" / package
    modules = [path for path in tracked_files() if path.suffix == ".py" and path.is_relative_to(root)]
    assert modules
    assert [(path.name, touched) for path in modules for touched in touches(path.read_text())] == []


@pytest.mark.parametrize(
    "text", ["path.unlink()", "(a / b).stat().st_size", "f = path.open", "open(p)", "datetime.now(UTC)"]
)
def test_what_touches_a_file_or_a_clock_is_seen(text: str) -> None:
    assert list(touches(text))


@pytest.mark.parametrize("root", ["api_server", "cli", "host_helper", "proto/gen", "testing"])
def test_namespace_package_has_no_init_file(root: str) -> None:
    assert not (ROOT / root / "ingle/__init__.py").exists()


@pytest.mark.parametrize("root", ["api_server", "cli", "host_helper", "testing"])
def test_every_package_below_the_namespace_says_what_it_is_for(root: str) -> None:
    packages = {path.parent for path in tracked_files() if path.suffix == ".py" and path.is_relative_to(ROOT / root)}
    packages -= {ROOT / root / "ingle"}
    assert relative([package for package in sorted(packages) if not (package / "__init__.py").exists()]) == []


def test_unit_tests_stand_where_the_code_they_are_about_does() -> None:
    tests = [
        path.relative_to(ROOT / "tests/unit") for path in tracked_files() if path.is_relative_to(ROOT / "tests/unit")
    ]
    modules = [path for path in tests if path.suffix == ".py" and len(path.parts) > 1]
    assert modules
    # tests/unit/cli/system is about cli/ingle/cli/system.
    assert [str(path) for path in modules if not (ROOT / path.parts[0] / "ingle" / path.parent).is_dir()] == []


def test_modules_are_short_enough_to_read_in_one_go() -> None:
    modules = [path for path in tracked_files() if path.suffix in {".py", ".go", ".sh"}]
    assert relative([path for path in modules if path.read_bytes().count(b"\n") > MOST_LINES]) == []


def test_no_file_names_a_package_registry() -> None:
    assert relative([path for path in tracked_files() if REGISTRY_HOSTS.search(path.read_bytes())]) == []


def test_no_file_names_this_checkout() -> None:
    here = f"{ROOT}/".encode()
    assert relative([path for path in tracked_files() if here in path.read_bytes()]) == []

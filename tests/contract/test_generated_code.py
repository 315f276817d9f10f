"""proto/gen runs with every version of its runtime libraries that pyproject.toml admits."""

import re
import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GENERATED = ROOT / "proto/gen/ingle/v1"


def test_grpcio_is_never_older_than_the_generated_services() -> None:
    (written,) = _found(r"GRPC_GENERATED_VERSION = '(.*)'", "*_pb2_grpc.py")
    assert _oldest("grpcio") >= Version(written)


def test_protobuf_is_never_older_than_the_generated_messages() -> None:
    (written,) = _found(r"# Protobuf Python Version: (.*)", "*_pb2.py")
    assert _oldest("protobuf") >= Version(written)


def test_constraints_lock_every_dependency_at_a_version_it_admits() -> None:
    locked = dict(re.findall(r"^(\S+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    wanted = chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    assert [text for text in wanted if not _admits(Requirement(text), locked)] == [], "`make lock` locks anew"


def _found(pattern: str, files: str) -> set[str]:
    return {version for file in GENERATED.glob(files) for version in re.findall(pattern, file.read_text())}


def _oldest(distribution: str) -> Version:
    """The lower bound of what ingle depends on."""
    (requirement,) = (each for each in map(Requirement, PROJECT["dependencies"]) if each.name == distribution)
    (bound,) = (each for each in requirement.specifier if each.operator == ">=")
    return Version(bound.version)


def _admits(requirement: Requirement, locked: dict[str, str]) -> bool:
    return requirement.name in locked and requirement.specifier.contains(locked[requirement.name])

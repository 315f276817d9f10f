"""Which Firecracker is there, and whether it will do."""

from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.adapters.firecracker import FirecrackerEngine
from ingle.api_server.adapters.firecracker.program import Program, check_version, number
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import HostProblem, Reason


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("Firecracker v1.12.1\n\n2026-11-30T02:07:29 [anonymous-instance:main] exit_code=0\n", "1.12.1"),
        ("1.17.0-dev", "1.17.0-dev"),
        ("none of your business", "none of your business"),
    ],
)
def test_the_version_is_found_in_what_it_says(said: str, version: str) -> None:
    assert number(said) == version


@pytest.mark.parametrize("version", ["1.12.0", "1.15.1", "1.16.2", "1.17.0-dev", "2.0"])
def test_new_ones_will_do(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["1.11.9", "0.25", "", "none of your business"])
def test_old_ones_are_refused_with_what_to_type(version: str) -> None:
    with pytest.raises(HostProblem, match=r"is too old: 1\.12 is the first") as caught:
        check_version(version)
    assert caught.value.reason is Reason.DEPENDENCY_MISSING
    assert "ingle engine install firecracker" in caught.value.remedy


@pytest.mark.parametrize("version", ["1.16.0", "1.16.1"])
def test_those_whose_guests_are_lost_when_they_stood_still_are_refused(version: str) -> None:
    with pytest.raises(HostProblem, match="loses the agent of a guest that is paused"):
        check_version(version)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo Firecracker v1.11.0", "is too old"),
        ("echo what >&2; exit 3", "does not tell its version"),
        ("echo Firecracker v1.12.1", ""),
    ],
)
async def test_what_is_wrong_with_the_program_is_told_before_it_is_needed(
    tmp_path: Path, script: str, problem: str
) -> None:
    path = tmp_path / "firecracker"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    nowhere = Path()
    tools, none = Tools(tmp_path), cast("Any", None)
    told = await FirecrackerEngine(str(path), tools, none, none, nowhere).problem()
    assert problem in (told.message if told else "")
    assert (told is None) == (not problem)
    if told is not None:
        assert "ingle engine install firecracker" in told.remedy


async def test_another_program_in_its_place_is_asked_anew(tmp_path: Path) -> None:
    path = tmp_path / "firecracker"
    program = Program(str(path), Tools(tmp_path))
    for version in ("1.12.1", "1.15.1"):
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\necho x >>{tmp_path}/calls; echo Firecracker v{version}\n")
        path.chmod(0o755)
        assert [await program.version(), await program.version()] == [version, version]
    assert (tmp_path / "calls").read_text() == "x\n" * 2

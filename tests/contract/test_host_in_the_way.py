"""A server that can't start says what is in its way and what to do about it, not where in its code it noticed."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import Server, server_directory


def _file(path: Path) -> None:
    path.touch()


def _elsewhere(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def _directory(path: Path) -> None:
    (path / "full").mkdir(parents=True)


@pytest.mark.parametrize("make", [_file, _elsewhere])
@pytest.mark.parametrize(
    ("place", "variable"),
    [
        ("state/ingle", "XDG_STATE_HOME"),
        ("state/ingle/private", "XDG_STATE_HOME"),
        ("cache/ingle", "XDG_CACHE_HOME"),
        ("run/ingle", "XDG_RUNTIME_DIR"),
    ],
)
def test_no_directory_where_one_belongs(place: str, variable: str, make: Callable[[Path], None]) -> None:
    said, path = _refusal_of_a_start_with(place, make)
    assert f"{path} is not a directory of uid {os.getuid()}" in said
    assert f"remove {path}, or set {variable}" in said


@pytest.mark.parametrize(
    "place",
    [
        "state/ingle/ingle.db",
        f"state/ingle/private/{os.getuid()}.sock",
        "state/ingle/api.sock",
        "run/ingle/api.sock",
    ],
)
def test_a_directory_where_a_file_or_socket_belongs(place: str) -> None:
    said, path = _refusal_of_a_start_with(place, _directory)
    assert str(path) in said
    assert "try: " in said


def _refusal_of_a_start_with(place: str, make: Callable[[Path], None]) -> tuple[str, Path]:
    with server_directory() as root:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        server = Server(root)
        ended = subprocess.run(server.argv, env=server.env, capture_output=True, text=True, check=False, timeout=60)
        by_grpc = " add_port.cc:"
        lines = (line for line in ended.stderr.splitlines() if not line.startswith("{") and by_grpc not in line)
        told = "\n".join(lines)
        assert ended.returncode == 1, ended.stderr
        assert told.startswith("ingle-server: "), "nothing but that"
        assert len(told.splitlines()) == 2, told
        return told, path

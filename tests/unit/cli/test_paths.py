"""Where the server is looked for."""

import os
from pathlib import Path

import pytest

from ingle.cli import paths
from ingle.cli.errors import CliError


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INGLE_SOCKET", "INGLE_MODE", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_a_named_socket_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGLE_SOCKET", "/somewhere/api.sock")
    address = paths.api_address()
    assert (address.path, address.own) == (Path("/somewhere/api.sock"), False)
    assert "unset INGLE_SOCKET" in address.remedy


def test_a_system_install_is_taken_by_those_who_may_use_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "SYSTEM_RUNTIME_DIRECTORY", tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "mine"))
    assert paths.api_address().path == tmp_path / "api.sock"
    assert not paths.api_address().own
    monkeypatch.setattr(os, "getuid", lambda: 3_000_000)
    monkeypatch.setattr(os, "getegid", lambda: 3_000_000)
    monkeypatch.setattr(os, "getgroups", lambda: [3_000_000])
    assert paths.api_address().path == tmp_path / "mine/ingle/api.sock"
    monkeypatch.setattr(os, "getgroups", lambda: [3_000_000, tmp_path.stat().st_gid])
    assert paths.api_address().path == tmp_path / "api.sock"


@pytest.mark.parametrize(("mode", "where"), [("user", "mine/ingle/api.sock"), ("system", "api.sock")])
def test_the_mode_can_be_forced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str, where: str) -> None:
    monkeypatch.setattr(paths, "SYSTEM_RUNTIME_DIRECTORY", tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("INGLE_MODE", mode)
    assert paths.api_address().path == tmp_path / where


def test_another_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGLE_MODE", "root")
    with pytest.raises(CliError, match="user or system is allowed"):
        paths.api_address()


def test_the_runtime_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert paths.api_address() == paths.Address(tmp_path / "ingle" / "api.sock", own=True)


def test_without_one_a_directory_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative/is/ignored")
    login = Path(f"/run/user/{os.getuid()}")
    assert paths.runtime_directory() in {login / "ingle", Path("/tmp") / f"ingle-{os.getuid()}"}


def test_what_others_control_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "ingle").symlink_to("/tmp")
    with pytest.raises(CliError, match="not a directory of yours"):
        paths.api_address()
    (tmp_path / "ingle").unlink()
    (tmp_path / "ingle").touch()
    with pytest.raises(CliError, match="not a directory of yours"):
        paths.api_address()


def test_the_log_is_in_the_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert paths.server_log() == tmp_path / "ingle" / "server.log"

"""What a service tells systemd."""

import socket
from pathlib import Path

import pytest

from ingle.api_server.host.service_manager import tell_manager


def test_the_state_arrives_at_the_managers_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        tell_manager("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_so_it_does_at_an_abstract_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"ingle-test-{tmp_path.name}"
        manager.bind(f"\0{name}")
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        tell_manager("STOPPING=1")
        assert manager.recv(100) == b"STOPPING=1"


def test_without_a_manager_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    tell_manager("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    tell_manager("READY=1")

"""Whom the host asks for names."""

from pathlib import Path

import pytest

from ingle.api_server.host.resolver import asks_ipv6_alone


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ("nameserver ::1\n", True),
        ("# nameserver 1.1.1.1\nsearch example\nnameserver fe80::1%eth0\noptions edns0\n", True),
        ("nameserver ::1\nnameserver 1.1.1.1\n", False),
        ("nameserver 127.0.0.53\n", False),
        ("nameserver\nnameserver nonsense\n", False),
        ("", False),
    ],
)
def test_a_host_that_asks_by_ipv6_alone_is_known(tmp_path: Path, text: str, alone: bool) -> None:
    (tmp_path / "resolv.conf").write_text(text)
    assert asks_ipv6_alone(tmp_path / "resolv.conf") is alone


def test_a_host_without_a_resolver_asks_nobody(tmp_path: Path) -> None:
    assert not asks_ipv6_alone(tmp_path / "resolv.conf")

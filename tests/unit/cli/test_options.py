"""How text becomes values."""

import pytest
import typer

from ingle.cli.commands.vm.guest_command import guest_argv
from ingle.cli.options import parse_count, parse_environment, parse_published
from ingle.cli.output import fields, table
from ingle.v1 import protocol_pb2


def test_the_guest_command_is_what_follows() -> None:
    assert guest_argv(["ls", "-l"]) == ["ls", "-l"]
    assert guest_argv(["--", "ls", "--", "-l"]) == ["ls", "--", "-l"]
    assert guest_argv(["--", "-odd"]) == ["-odd"]
    assert guest_argv([]) == []


def test_options_that_come_too_late_are_refused() -> None:
    with pytest.raises(typer.BadParameter, match="before"):
        guest_argv(["-u", "me", "ls"])


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "here")
    assert parse_environment(["A=1", "B=", "C=x=y", "MINE", "A=2"]) == {"A": "2", "B": "", "C": "x=y", "MINE": "here"}


@pytest.mark.parametrize("text", ["", "-1", "1.0", "x", "4294967296", "²"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        parse_count(text)


def test_tables_line_up_and_end_without_blanks() -> None:
    assert (
        table(("NAME", "N"), [("longer-name", "1"), ("x", "22")]) == "NAME         N\nlonger-name  1\nx            22"
    )
    assert table(("NAME", "N"), []) == "NAME  N"


def test_fields_leave_out_what_is_empty() -> None:
    assert fields((("a", "1"), ("longer", "2"), ("none", ""))) == "a       1\nlonger  2"


def test_published_ports() -> None:
    texts = ["80", "8080:80", "5353:53/udp", "1:2/tcp", "127.0.0.1:8080:80", "[::1]:8080:80/udp", "0.0.0.0:1:2"]
    assert [(port.address, port.host_port, port.vm_port, port.protocol) for port in parse_published(texts)] == [
        ("", 80, 80, protocol_pb2.PROTOCOL_TCP),
        ("", 8080, 80, protocol_pb2.PROTOCOL_TCP),
        ("", 5353, 53, protocol_pb2.PROTOCOL_UDP),
        ("", 1, 2, protocol_pb2.PROTOCOL_TCP),
        ("127.0.0.1", 8080, 80, protocol_pb2.PROTOCOL_TCP),
        ("::1", 8080, 80, protocol_pb2.PROTOCOL_UDP),
        ("0.0.0.0", 1, 2, protocol_pb2.PROTOCOL_TCP),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a",
        "80:",
        "80:b",
        "-1:80",
        "80/sctp",
        "example:1:2",
        "127.0.0.1:80",
        "127.0.0.1::80",
        "::1:80:80",
        "[::1]80",
        "123456",
    ],
)
def test_what_is_no_published_port(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="8080:80"):
        parse_published([text])

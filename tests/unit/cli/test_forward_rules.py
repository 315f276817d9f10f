"""What people type after `ingle vm forward VM`."""

import pytest

from ingle.cli.forward_rules import Local, Rule, Target, parse_rule, parse_target

HERE = "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "local", "target"),
    [
        ("80", Local(HERE, 80), Target(80)),
        ("8080:80", Local(HERE, 8080), Target(80)),
        ("0:80", Local(HERE, 0), Target(80)),
        (":80", Local(HERE, 0), Target(80)),
        ("0.0.0.0:8080:80", Local("0.0.0.0", 8080), Target(80)),
        ("*:8080:80", Local("0.0.0.0", 8080), Target(80)),
        ("localhost:8080:80", Local(HERE, 8080), Target(80)),
        (":8080:80", Local(HERE, 8080), Target(80)),
        ("[::1]:8080:80", Local("::1", 8080), Target(80)),
        ("127.0.0.1::80", Local(HERE, 0), Target(80)),
        ("8080:db.internal:5432", Local(HERE, 8080), Target(5432, "db.internal")),
        ("8080:10.0.0.5:80", Local(HERE, 8080), Target(80, "10.0.0.5")),
        ("8080:[fd00::1]:80", Local(HERE, 8080), Target(80, "fd00::1")),
        ("[::1]:8080:[fd00::1]:80", Local("::1", 8080), Target(80, "fd00::1")),
        ("0.0.0.0:8080:db:80", Local("0.0.0.0", 8080), Target(80, "db")),
        ("8080:/run/x.sock", Local(HERE, 8080), Target(path="/run/x.sock")),
        ("0.0.0.0:8080:/run/x.sock", Local("0.0.0.0", 8080), Target(path="/run/x.sock")),
        ("./a.sock:80", Local(path="./a.sock"), Target(80)),
        ("/tmp/a.sock:/run/b.sock", Local(path="/tmp/a.sock"), Target(path="/run/b.sock")),
        ("./a.sock:db:80", Local(path="./a.sock"), Target(80, "db")),
    ],
)
def test_a_rule(text: str, local: Local, target: Target) -> None:
    assert parse_rule(text) == Rule(local, target)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the port in the guest is missing"),
        ("8080:", "the port in the guest is missing"),
        ("http", "'http' is no port"),
        ("0", "'0' is no port"),
        ("65536", "'65536' is no port"),
        ("65536:80", "'65536' is no port"),
        ("-1:80", "'-1' is no port"),
        ("²:80", "'²' is no port"),
        ("127.0.0.1:80", "'127.0.0.1' is no port"),
        ("a.sock:80", "./SOCKET"),
        ("example.org:8080:80", "'example.org' is no address of this host"),
        ("/run/x.sock", "say where to listen"),
        ("1:2:3:4:5", "too many colons"),
        ("::1:80:80", "give PORT, LOCAL_PORT:PORT"),
    ],
)
def test_what_is_no_rule_says_why_and_what_is(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="give PORT") as refused:
        parse_rule(text)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("22", Target(22)),
        ("db:5432", Target(5432, "db")),
        ("[::1]:22", Target(22, "::1")),
        ("/run/x", Target(path="/run/x")),
    ],
)
def test_a_target(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["", "ssh", "1:2:3", "8080:/run/x", "db:"])
def test_what_is_no_target_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="give PORT, HOST:PORT or /SOCKET"):
        parse_target(text)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Local("::1", 80), "[::1]:80"),
        (Local(path="./a"), "./a"),
        (Target(80), "port 80"),
        (Target(80, "db"), "db:80"),
        (Target(path="/run/x"), "/run/x"),
    ],
)
def test_places_are_shown_as_they_are_typed(place: Local | Target, text: str) -> None:
    assert str(place) == text

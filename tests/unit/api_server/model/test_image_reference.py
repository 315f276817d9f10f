"""References to images in registries, as docker has them, beside the names of ingle's own catalog."""

import pytest

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.image_reference import ImageReference, Login, check_logins

HASH = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "whole", "name"),
    [
        ("python", "docker.io/library/python:latest", "python:latest"),
        ("python:3.12", "docker.io/library/python:3.12", "python:3.12"),
        ("docker.io/library/python:3.12", "docker.io/library/python:3.12", "python:3.12"),
        ("org/app", "docker.io/org/app:latest", "org/app:latest"),
        ("docker.io/app:1", "docker.io/library/app:1", "app:1"),
        ("debian:bookworm", "docker.io/library/debian:bookworm", "docker.io/library/debian:bookworm"),
        ("docker://debian:bookworm", "docker.io/library/debian:bookworm", "docker.io/library/debian:bookworm"),
        ("ghcr.io/org/app:v1", "ghcr.io/org/app:v1", "ghcr.io/org/app:v1"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("127.0.0.1:5000/a/b__c:1", "127.0.0.1:5000/a/b__c:1", "127.0.0.1:5000/a/b__c:1"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        (f"app@{HASH}", f"docker.io/library/app@{HASH}", f"app@{HASH}"),
        (f"app:1@{HASH}", f"docker.io/library/app@{HASH}", f"app@{HASH}"),
    ],
)
def test_what_is_open_is_filled_in_as_docker_does(text: str, whole: str, name: str) -> None:
    assert ImageReference.parse(text, ["debian:bookworm"]) == ImageReference(whole, name)


@pytest.mark.parametrize(
    "text",
    ["", "Python", "a b", "../x", "a//b", "/a", "a/", "a:", "a:b:c", "a@sha256:12", "-a", "a:-x", "http://a/b",
     "x" * 256, "a\n", "a@sha512:" + "0" * 128, "--help", "a:" + "x" * 129],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        ImageReference.parse(text, [])
    assert raised.value.field == "name"


def test_logins_are_bounded_and_tell_no_secret() -> None:
    login = Login("somebody", "a secret", "another")
    assert "secret" not in repr(login)
    assert "another" not in repr(login)
    check_logins({str(number): login for number in range(20)})
    for wrong in ({str(number): login for number in range(21)}, {"a": Login("x", "y" * 4097)}, {"h" * 4097: login}):
        with pytest.raises(InvalidArgument):
            check_logins(wrong)

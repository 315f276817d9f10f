"""Which SSH keys a VM may be given."""

import base64

import pytest

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.ssh_keys import check_ssh_keys


def blob(kind: bytes, rest: bytes = bytes(36)) -> str:
    return base64.b64encode(len(kind).to_bytes(4, "big") + kind + rest).decode()


GOOD = f"ssh-ed25519 {blob(b'ssh-ed25519')} me@host"


def test_public_keys_are_taken() -> None:
    check_ssh_keys([])
    check_ssh_keys(
        [GOOD, f"ssh-rsa {blob(b'ssh-rsa')}", f"sk-ssh-ed25519@openssh.com {blob(b'sk-ssh-ed25519@openssh.com')} ü"]
    )


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", "TYPE BASE64|does not hold"),
        ("ssh-ed25519", "does not hold"),
        ("ssh-ed25519 AAAA!", "TYPE BASE64"),
        (f"ssh-rsa {blob(b'ssh-ed25519')}", "does not hold a key of type 'ssh-rsa'"),
        (f"ssh-rsa {blob(b'ssh-rsa', b'')}", "does not hold"),
        (GOOD + "\n" + GOOD, "one line"),
        (GOOD + "\0", "printable"),
        (GOOD + "x" * 16384, "at most"),
        (f'command="sh" {GOOD}', "TYPE BASE64"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
    ],
)
def test_anything_else_is_refused(key: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        check_ssh_keys([GOOD, key])


def test_a_thousand_is_enough() -> None:
    check_ssh_keys([GOOD] * 1000)
    with pytest.raises(InvalidArgument, match="at most 1000"):
        check_ssh_keys([GOOD] * 1001)

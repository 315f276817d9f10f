"""Public SSH keys, as a .pub file has them."""

import base64
import binascii
import struct
from collections.abc import Sequence

from ingle.api_server.model.errors import InvalidArgument

_MOST_KEYS = 1000
_MOST_BYTES = 256 * 1024  # of all of them: every list of VMs tells them
_LONGEST_KEY = 16 * 1024  # RSA with 16384 bits has some 2800 characters


def check_ssh_keys(keys: Sequence[str]) -> None:
    """Raise InvalidArgument unless each is "TYPE BASE64 [COMMENT]", which is what the agent takes."""
    if len(keys) > _MOST_KEYS:
        raise InvalidArgument(f"{len(keys)} SSH keys: at most {_MOST_KEYS} are allowed", field="ssh_keys")
    size = sum(len(key.encode(errors="replace")) for key in keys)
    if size > _MOST_BYTES:
        raise InvalidArgument(f"{size} bytes of SSH keys: at most {_MOST_BYTES} are allowed", field="ssh_keys")
    for key in keys:
        problem = _problem(key)
        if problem:
            raise InvalidArgument(
                f"SSH key {key[:40]!r}: {problem}", "--ssh-key ~/.ssh/id_ed25519.pub", field="ssh_keys"
            )


def _problem(key: str) -> str:
    if len(key.encode(errors="replace")) > _LONGEST_KEY or not key.isprintable():
        return f"one line of at most {_LONGEST_KEY} printable characters is allowed"
    kind, _, rest = key.strip().partition(" ")
    if "PRIVATE KEY" in key:
        return "that is a private key; give the public one"
    try:
        blob = base64.b64decode(rest.split(" ", 1)[0], validate=True)
    except binascii.Error:
        return 'it is not "TYPE BASE64 [COMMENT]"'
    # A key begins with its type, after four bytes of length; see RFC 4253, section 6.6.
    named = struct.pack(">I", len(kind.encode())) + kind.encode()
    if not kind or not blob.startswith(named) or len(blob) == len(named):
        return f"it does not hold a key of type {kind[:40]!r}"
    return ""

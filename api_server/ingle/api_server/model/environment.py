"""Variables of the environment that callers give to VMs and to commands."""

import re
from collections.abc import Mapping

from ingle.api_server.model.errors import InvalidArgument

MOST_ENV_BYTES = 64 * 1024
"""Of the names and values that a VM keeps, together."""

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_env(env: Mapping[str, str]) -> None:
    """Raise InvalidArgument unless every variable could be set by a shell."""
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name):
            raise InvalidArgument(
                f"environment variable {name[:100]!r}: letters, digits and '_' are allowed",
                "-e NAME=value",
                field="env",
            )
        if "\0" in value:
            raise InvalidArgument(f"environment variable {name}: a value can't hold a NUL byte", field="env")


def check_env_size(env: Mapping[str, str]) -> None:
    """Raise InvalidArgument for more than a VM keeps, and every list of VMs tells."""
    size = sum(len(name.encode()) + len(value.encode(errors="replace")) for name, value in env.items())
    if size > MOST_ENV_BYTES:
        raise InvalidArgument(
            f"{-(-size // 1024)} KiB of environment: {MOST_ENV_BYTES // 1024} KiB is allowed",
            "give a file to the guest: ingle vm cp --help",
            field="env",
        )

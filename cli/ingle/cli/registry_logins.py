"""Who the caller is to a registry of images: what docker and podman keep, read with the caller's own rights."""

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ingle.cli.errors import failed
from ingle.v1 import registry_pb2

DOCKER_HUB = "docker.io"

_DOCKER_HUBS_OWN = f"https://index.{DOCKER_HUB}/v1/"  # what docker files that login under
UNREADABLE = "LOGIN_UNREADABLE"  # on this side

_LONGEST = 1 << 20
_SECONDS = 60  # a helper may ask its user
_INSTEAD = "<token>"  # of a user name: a helper's secret is a token


def host_of(reference: str) -> str:
    """The registry that a reference names, as docker takes it."""
    host, slash, _ = reference.removeprefix("docker://").partition("/")
    return host if slash and (any(sign in host for sign in ".:") or host == "localhost") else DOCKER_HUB


def login_at(host: str, env: Mapping[str, str]) -> registry_pb2.RegistryLogin | None:
    """The first that is found, podman's files before docker's. Raises CliError for files that can't be read."""
    for path in _files(env):
        login = _login_in(path, host)
        if login is not None:
            return login
    return None


def _files(env: Mapping[str, str]) -> Iterator[Path]:
    home = Path(env.get("HOME") or "/")
    if said := env.get("REGISTRY_AUTH_FILE"):
        yield Path(said)
    if runtime := env.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers/auth.json"
    yield Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"
    yield Path(env.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _login_in(path: Path, host: str) -> registry_pb2.RegistryLogin | None:
    try:
        with open(path, "rb") as file:
            said = json.loads(file.read(_LONGEST))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise failed(UNREADABLE, f"{path}: {error}", f"correct {path}, or move it away") from None
    if not isinstance(said, dict):
        return None
    names = (host, *((_DOCKER_HUBS_OWN,) if host == DOCKER_HUB else (f"https://{host}",)))
    helpers, logins = said.get("credHelpers") or {}, said.get("auths") or {}
    for name in names:
        if helper := helpers.get(name) or (said.get("credsStore") if name in logins else None):
            return _asked(str(helper), name, host)
        if name in logins:
            return _decoded(logins[name], host, path)
    return None


def _decoded(login: Any, host: str, path: Path) -> registry_pb2.RegistryLogin | None:
    try:
        if token := login.get("identitytoken"):
            return registry_pb2.RegistryLogin(host=host, identity_token=token)
        username, colon, password = base64.b64decode(login.get("auth") or "").decode().partition(":")
    except (AttributeError, TypeError, binascii.Error, UnicodeDecodeError):
        raise failed(UNREADABLE, f"{path}: its login at {host} can't be read", f"docker login {host}") from None
    return registry_pb2.RegistryLogin(host=host, username=username, password=password) if colon else None


def _asked(helper: str, name: str, host: str) -> registry_pb2.RegistryLogin | None:
    """What docker-credential-HELPER has; see docker-credential-helpers."""
    program = f"docker-credential-{os.path.basename(helper)}"
    try:
        asked = subprocess.run(
            [program, "get"], input=name.encode(), stdout=subprocess.PIPE, timeout=_SECONDS, check=False
        )
        said = json.loads(asked.stdout[:_LONGEST]) if asked.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise failed(UNREADABLE, f"{program} can't tell the login at {host}: {error}", f"docker login {host}") from None
    if not isinstance(said, dict):
        return None
    username, secret = str(said.get("Username", "")), str(said.get("Secret", ""))
    if username == _INSTEAD:
        return registry_pb2.RegistryLogin(host=host, identity_token=secret)
    return registry_pb2.RegistryLogin(host=host, username=username, password=secret)

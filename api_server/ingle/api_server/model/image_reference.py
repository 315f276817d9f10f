"""References to images in registries, as docker has them: [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]."""

import re
from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass, field
from types import MappingProxyType

from ingle.api_server.model.errors import InvalidArgument

DOCKER_HUB = "docker.io"

_SCHEME = "docker://"
_OFFICIAL = "library/"
LATEST = "latest"
_LONGEST = 255
_MOST_LOGINS, _LONGEST_LOGIN = 20, 4096
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class ImageReference:
    """One of them. `whole` leaves nothing open; `name` is what the image is called here."""

    whole: str
    name: str

    @staticmethod
    def parse(text: str, reserved: Collection[str]) -> "ImageReference":
        """What is meant by `text`, which may begin with docker://. Where its short name is one of `reserved`, the whole
        one is the image's name. Raises InvalidArgument."""
        said = text.removeprefix(_SCHEME)
        match = _REFERENCE.fullmatch(said) if len(said) <= _LONGEST else None
        if match is None:
            raise InvalidArgument(
                f"image {text[:100]!r}: neither of the catalog nor a reference: "
                f"[HOST[:PORT]/]REPOSITORY[:TAG][@sha256:…] is allowed, in small letters but for the tag",
                "ingle image catalog; ingle image pull docker.io/library/alpine:latest",
                field="name",
            )
        host, repository = match["host"], match["repository"]
        if host is not None and not any(sign in host for sign in ".:") and host != "localhost":
            host, repository = None, f"{host}/{repository}"
        if host is None or host == DOCKER_HUB:
            host, repository = DOCKER_HUB, repository if "/" in repository else f"{_OFFICIAL}{repository}"
        version = f"@{match['digest']}" if match["digest"] else f":{match['tag'] or LATEST}"
        whole = f"{host}/{repository}{version}"
        short = whole.removeprefix(f"{DOCKER_HUB}/").removeprefix(_OFFICIAL) if host == DOCKER_HUB else whole
        return ImageReference(whole, whole if short in reserved else short)


@dataclass(frozen=True, slots=True)
class Login:
    """Who a caller is to a registry: a name with a password, or a token for the registry's token service."""

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)


NO_LOGINS: Mapping[str, Login] = MappingProxyType({})


def check_logins(logins: Mapping[str, Login]) -> None:
    """Raise InvalidArgument for too many, or too long ones."""
    longest = max((len(text) for host, login in logins.items() for text in (host, *astuple(login))), default=0)
    if len(logins) > _MOST_LOGINS or longest > _LONGEST_LOGIN:
        raise InvalidArgument(
            f"logins: at most {_MOST_LOGINS} are allowed, of {_LONGEST_LOGIN} characters each", field="logins"
        )


def names_registry(text: str) -> bool:
    """Whether it says which registry is meant. Localhost without a port is none: podman calls so what it has built."""
    host, slash, _ = text.partition("/")
    return bool(slash) and any(sign in host for sign in ".:")


def is_explicit(text: str) -> bool:
    """Whether it says by itself that no name of the catalog is meant."""
    return text.startswith(_SCHEME) or "/" in text or "@" in text

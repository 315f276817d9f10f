"""What `ingle vm forward` is told: [LOCAL:]TARGET, as ssh -L, docker -p and kubectl port-forward have it."""

import ipaddress
import re
from dataclasses import dataclass

RULE_FORMS = (
    "PORT, LOCAL_PORT:PORT, ADDRESS:LOCAL_PORT:PORT, LOCAL_PORT:HOST:PORT or LOCAL_PORT:/SOCKET; "
    "a local unix socket is ./SOCKET instead of LOCAL_PORT"
)
TARGET_FORMS = "PORT, HOST:PORT or /SOCKET"

_LOOPBACK = "127.0.0.1"
_ADDRESSES = {"": _LOOPBACK, "localhost": _LOOPBACK, "*": "0.0.0.0"}  # noqa: S104 - as ssh has it
_LARGEST_PORT = 65535


@dataclass(frozen=True)
class Local:
    """Where to listen: a TCP port of an address of this host (0: any free one), or a unix socket at `path`."""

    address: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return self.path or _joined(self.address, self.port)


@dataclass(frozen=True)
class Target:
    """What to connect to: a TCP port, of the guest itself unless a host is named, or a unix socket in the guest."""

    port: int = 0
    host: str = ""
    path: str = ""

    def __str__(self) -> str:
        return self.path or (_joined(self.host, self.port) if self.host else f"port {self.port}")


@dataclass(frozen=True)
class Rule:
    """One forward."""

    local: Local
    target: Target


def parse_rule(text: str) -> Rule:
    """Raises ValueError that tells the allowed forms."""
    pieces = _pieces(text)
    target = pieces.pop()
    host = ""
    if not target.startswith("/") and len(pieces) > 1 and not _is_local(pieces[-1]):
        host = pieces.pop()
    where = _target(text, target, host)
    match pieces:
        case [] if where.path:
            raise _bad(text, "say where to listen", RULE_FORMS)
        case []:
            return Rule(Local(_LOOPBACK, where.port), where)
        case [path] if "/" in path:
            return Rule(Local(path=path), where)
        case [port]:
            return Rule(Local(_LOOPBACK, _port(text, port, 0)), where)
        case [address, port]:
            return Rule(Local(_address(text, address), _port(text, port, 0)), where)
    raise _bad(text, "there are too many colons", RULE_FORMS)


def parse_target(text: str) -> Target:
    """Where a single connection goes. Raises ValueError that tells the allowed forms."""
    pieces = _pieces(text)
    target = pieces.pop()
    if len(pieces) > 1 or (pieces and target.startswith("/")):
        raise _bad(text, "there are too many colons", TARGET_FORMS)
    return _target(text, target, pieces[0] if pieces else "", TARGET_FORMS)


def _pieces(text: str) -> list[str]:
    """What is between the colons; an IPv6 address is in brackets, which go."""
    return [re.sub(r"^\[(.*)\]$", r"\1", piece) for piece in re.split(r":(?![^\[]*\])", text)]


def _is_local(piece: str) -> bool:
    return piece == "" or piece.isdigit() or "/" in piece


def _target(text: str, target: str, host: str, forms: str = RULE_FORMS) -> Target:
    if target.startswith("/"):
        return Target(path=target)
    return Target(_port(text, target, 1, forms), host)


def _port(text: str, port: str, least: int, forms: str = RULE_FORMS) -> int:
    number = int(port or least) if (port + "0").isascii() and (port + "0").isdigit() else -1
    if not port and least:
        raise _bad(text, "the port in the guest is missing", forms)
    if not least <= number <= _LARGEST_PORT:
        raise _bad(text, f"{port!r} is no port", forms)
    return number


def _address(text: str, address: str) -> str:
    known = _ADDRESSES.get(address, address)
    try:
        return str(ipaddress.ip_address(known))
    except ValueError:
        raise _bad(text, f"{address!r} is no address of this host", RULE_FORMS) from None


def _bad(text: str, why: str, forms: str) -> ValueError:
    return ValueError(f"{text!r}: {why}; give {forms}")


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

"""Identifiers: how they are made and what they look like."""

import re
import secrets

NAME_RULE = "1 to 63 of a-z, 0-9 and '-', neither first nor last a '-'"

RESERVED_NAMES = frozenset(
    {"localhost", "localdomain", "broadcasthost", "ip6-localhost", "ip6-loopback", "ip6-localnet"}
    | {"ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts"}
)
"""Host names that mean something else everywhere; see hosts(5), and what Debian writes there."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VM_ID = re.compile(r"[0-9a-f]{12}")
_CATALOG_ID = re.compile(r"[0-9a-f]{12,64}")

_ADJECTIVES = """
    amber ashen bright calm clever cosy deft eager fond gentle glad golden hale keen lively mellow merry
    mild neat plucky quick quiet ruddy snug spry steady sunny tidy warm wry
""".split()
_NOUNS = """
    alder andiron bellows birch brand brazier candle cedar chimney cinder coal ember fender flame flint
    hearth hickory ingle kettle kindling lamp larch log mantel oak pine poker rowan settle spark tinder
    trivet
""".split()


def new_op_id() -> str:
    """`op-` and 12 hex digits: 48 random bits, enough to find one call in years of logs."""
    return f"op-{secrets.token_hex(6)}"


def new_vm_id() -> str:
    """12 hex digits."""
    return secrets.token_hex(6)


def new_vm_name() -> str:
    """A name a person can say; the store is what makes sure that it is unique."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{secrets.token_hex(2)}"


def looks_like_catalog_id(text: str) -> bool:
    """Whether `text` could be the id of an image or a kernel (64 hex digits), or as much of one as lists show."""
    return _CATALOG_ID.fullmatch(text) is not None


def is_vm_id(text: str) -> bool:
    """Whether `text` is a whole VM id."""
    return _VM_ID.fullmatch(text) is not None


def is_dns_label(text: str) -> bool:
    """RFC 1123 label, lower case only, so that a VM's name is a host name everywhere."""
    return _NAME.fullmatch(text) is not None

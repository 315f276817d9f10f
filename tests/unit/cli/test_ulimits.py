"""Limits and umasks as people type them."""

import pytest

from ingle.cli.quantities import parse_umask
from ingle.cli.ulimits import parse_ulimits
from ingle.v1 import guest_pb2

UNLIMITED = 2**64 - 1


@pytest.mark.parametrize(
    ("text", "resource", "soft", "hard"),
    [
        ("nofile=1024:4096", guest_pb2.RESOURCE_NOFILE, 1024, 4096),
        ("nofile=1024", guest_pb2.RESOURCE_NOFILE, 1024, 1024),
        ("core=0", guest_pb2.RESOURCE_CORE, 0, 0),
        ("core=-1", guest_pb2.RESOURCE_CORE, UNLIMITED, UNLIMITED),
        ("memlock=65536:unlimited", guest_pb2.RESOURCE_MEMLOCK, 65536, UNLIMITED),
        ("as=18446744073709551615", guest_pb2.RESOURCE_AS, UNLIMITED, UNLIMITED),
    ],
)
def test_limits(text: str, resource: guest_pb2.Resource.ValueType, soft: int, hard: int) -> None:
    assert parse_ulimits([text]) == [guest_pb2.ResourceLimit(resource=resource, soft=soft, hard=hard)]


def test_order_is_kept() -> None:
    first, second = parse_ulimits(["nproc=1", "cpu=2"])
    assert (first.resource, second.resource) == (guest_pb2.RESOURCE_NPROC, guest_pb2.RESOURCE_CPU)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nofile", "NAME=SOFT"),
        ("nofile=", "NAME=SOFT"),
        ("nofile=x", "NAME=SOFT"),
        ("nofile=1:", "NAME=SOFT"),
        ("nofile=1:2:3", "NAME=SOFT"),
        ("nofile=-2", "NAME=SOFT"),
        ("nofile=²", "NAME=SOFT"),
        ("nofile=18446744073709551616", "NAME=SOFT"),
        ("nofile=unlimited:1", "above"),
        ("NOFILE=1", "nofile, nproc"),
        ("unspecified=1", "as, core"),
        ("=1", "as, core"),
    ],
)
def test_what_is_no_limit(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_ulimits([text])


def test_umasks() -> None:
    assert [parse_umask(text) for text in ("0", "022", "27", "0077", "777")] == [0, 0o22, 0o27, 0o77, 0o777]
    for text in ("", "8", "1000", "-1", "0o22", "rwx", "²"):
        with pytest.raises(ValueError, match="octal"):
            parse_umask(text)

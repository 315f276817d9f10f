"""`--ulimit NAME=SOFT[:HARD]`, as docker run takes it."""

from ingle.v1 import guest_pb2

_RULE = "give NAME=SOFT or NAME=SOFT:HARD, e.g. nofile=1024:4096; unlimited, or -1, is no limit"
_UNLIMITED = (1 << 64) - 1
_PREFIX = "RESOURCE_"


def parse_ulimits(assignments: list[str]) -> list[guest_pb2.ResourceLimit]:
    """Limits of a command. Raises ValueError that tells the allowed form; whatever the server would refuse is refused
    here already, so that `vm run` makes no VM for it."""
    limits = [_parse(assignment) for assignment in assignments]
    for index, limit in enumerate(limits):
        if limit.resource in [earlier.resource for earlier in limits[:index]]:
            raise ValueError(f"{assignments[index]!r}: {_name(limit.resource)} is given twice")
    return limits


def _parse(assignment: str) -> guest_pb2.ResourceLimit:
    name, equals, values = assignment.partition("=")
    soft, colon, hard = values.partition(":")
    if not equals:
        raise ValueError(f"{assignment!r}: {_RULE}")
    if name not in _names():
        raise ValueError(f"{assignment!r}: {name!r} is none of {', '.join(_names())}")
    try:
        limit = guest_pb2.ResourceLimit(
            resource=guest_pb2.Resource.Value(_PREFIX + name.upper()),
            soft=_value(soft),
            hard=_value(hard if colon else soft),
        )
    except ValueError:
        raise ValueError(f"{assignment!r}: {_RULE}") from None
    if limit.soft > limit.hard:
        raise ValueError(f"{assignment!r}: the soft limit is above the hard one; {_RULE}")
    return limit


def _value(text: str) -> int:
    if text in ("unlimited", "-1"):
        return _UNLIMITED
    if not text.isascii() or not text.isdigit() or int(text) > _UNLIMITED:
        raise ValueError(text)
    return int(text)


def _names() -> list[str]:
    return [_name(number) for number in guest_pb2.Resource.values() if number != guest_pb2.RESOURCE_UNSPECIFIED]


def _name(number: guest_pb2.Resource.ValueType) -> str:
    return guest_pb2.Resource.Name(number).removeprefix(_PREFIX).lower()

"""What a caller asks of a command is checked before any guest hears of it."""

import pytest

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.limits import UNLIMITED, Limited, ResourceLimit
from ingle.api_server.rpc import convert
from ingle.api_server.rpc.guest import session_messages
from ingle.v1 import guest_pb2


def limit(resource: int, soft: int, hard: int) -> guest_pb2.ResourceLimit:
    return guest_pb2.ResourceLimit(resource=resource, soft=soft, hard=hard)  # type: ignore[arg-type]


def test_resources_are_those_of_the_contract() -> None:
    names = {value.name.removeprefix("RESOURCE_") for value in guest_pb2.Resource.DESCRIPTOR.values}
    assert names == {"UNSPECIFIED", *(resource.name for resource in Limited)}


def test_settings() -> None:
    spec = convert.exec_spec(
        guest_pb2.ExecStart(
            argv=["true"], detach=True, umask=0o27, limits=[limit(guest_pb2.RESOURCE_NOFILE, 1, UNLIMITED)]
        )
    )
    assert (spec.detach, spec.umask) == (True, 0o27)
    assert spec.limits == (ResourceLimit(Limited.NOFILE, 1, UNLIMITED),)


def test_without_settings_there_are_none() -> None:
    spec = convert.exec_spec(guest_pb2.ExecStart(argv=["true"]))
    assert (spec.detach, spec.umask, spec.limits) == (False, None, ())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"detach": True, "open_stdin": True}, "stdin"),
        ({"umask": 0o1000}, "0777"),
        ({"limits": [limit(guest_pb2.RESOURCE_NOFILE, 2, 1)]}, "nofile: soft 2 is above hard 1"),
        ({"limits": [limit(guest_pb2.RESOURCE_AS, UNLIMITED, 1)]}, "soft unlimited"),
        ({"limits": [limit(guest_pb2.RESOURCE_CORE, 1, 1)] * 2}, "core: it is given twice"),
        ({"limits": [limit(0, 1, 1)]}, "NOFILE"),
        ({"limits": [limit(99, 1, 1)]}, "resource 99"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        convert.exec_spec(guest_pb2.ExecStart(argv=["true"], **fields))  # type: ignore[arg-type]
    if "limits" in fields or "umask" in fields:
        with pytest.raises(InvalidArgument, match=says):
            session_messages.session_program(guest_pb2.SessionProgram(**fields))  # type: ignore[arg-type]

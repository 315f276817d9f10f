"""What is said of a configuration that a server does not take."""

import pytest

from ingle.api_server import config
from ingle.api_server.model.errors import InvalidArgument


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("memory_bytes", "1x", "such as 512M, 2G"),
        ("disk_floor_bytes", "", "such as 512M, 2G"),
        ("vcpus", "two", "a whole number is allowed"),
        ("acceleration", "warp", "one of auto, kvm, tcg is allowed"),
        ("disk_overcommit", "maybe", "one of allow, warn, refuse is allowed"),
        ("disk_backend", "zfs", "one of qcow2, reflink"),
    ],
)
def test_a_value_that_is_refused_is_told_with_what_is_allowed_and_how_to_get_rid_of_it(
    name: str, value: str, allowed: str
) -> None:
    with pytest.raises(InvalidArgument) as in_file:
        config.load({"HOME": "/nowhere"}, text=f'{name} = "{value}"\n'.encode())
    assert allowed in in_file.value.message
    assert in_file.value.remedy == f"ingle config unset {name}"
    variable = f"INGLE_{name.upper()}"
    with pytest.raises(InvalidArgument) as in_environment:
        config.load({"HOME": "/nowhere", variable: value}, text=b"")
    assert allowed in in_environment.value.message
    assert in_environment.value.remedy == f"unset {variable}"


def test_vmms_of_a_user_are_isolated_where_units_forbid_namespaces_they_are_not() -> None:
    assert config.load({"HOME": "/home/any"}, text=b"").defaults.isolate
    assert not config.load({"INGLE_ISOLATE": "false", "HOME": "/home/any"}, text=b"").defaults.isolate
    assert not config.load({}, system=True, text=b"").defaults.isolate
    assert config.load({}, system=True, text=b"isolate = true").defaults.isolate

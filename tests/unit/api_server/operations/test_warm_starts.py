"""Which VMs can begin with a memory."""

from dataclasses import replace
from inspect import signature
from types import SimpleNamespace
from typing import Any

import pytest

from ingle.api_server.adapters.disk import CopyDisk, SnapshotDisk
from ingle.api_server.adapters.helper import AbsentDevices
from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.vm import BootMode, Init
from ingle.api_server.operations.warm_starts import WarmStarts
from unit.api_server.vmms import VM

SETTINGS = replace(VM.settings, engine="any", disk_backend="copy")


@pytest.fixture
def warm_starts() -> WarmStarts:
    """With an engine that saves, and disks of both kinds."""
    parts: dict[str, Any] = dict.fromkeys(list(signature(WarmStarts).parameters), SimpleNamespace(defaults=None))
    parts["engines"] = {"any": SimpleNamespace(info=SimpleNamespace(saves=True))}
    parts["backends"] = {each.name: each for each in (CopyDisk(), SnapshotDisk(AbsentDevices()))}
    return WarmStarts(**parts)


@pytest.mark.parametrize("network", ["user", "default", "backend"])
def test_a_memory_is_for_vms_of_any_network(warm_starts: WarmStarts, network: str) -> None:
    warm_starts.check(BootMode.WARM, replace(SETTINGS, network=network))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (replace(SETTINGS, init=Init.IMAGE), "another VM"),
        (replace(SETTINGS, disk_backend="dm-snapshot"), "dm-snapshot disk"),
        (replace(SETTINGS, engine="other"), "saves no memory"),
    ],
)
def test_who_must_begin_with_one_and_can_not_is_told_why(warm_starts: WarmStarts, settings: Any, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why) as refused:
        warm_starts.check(BootMode.WARM, settings)
    assert refused.value.remedy == "--boot auto"
    warm_starts.check(BootMode.AUTO, settings)

"""How long a guest may take."""

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest

from ingle.api_server.steps.target import PristineStart


@pytest.mark.parametrize(("waited", "seconds"), [(True, 60), (False, 600)])
def test_a_guest_that_gives_way_to_others_may_take_longer(waited: bool, seconds: float) -> None:
    required = [each.name for each in fields(PristineStart) if each.init][:8]
    nothing: Any = SimpleNamespace()
    start = PristineStart(**dict.fromkeys(required, nothing) | {"machine": nothing, "waited": waited})
    assert start.boot_seconds == seconds

"""Which memories are which."""

from dataclasses import fields, replace
from typing import Any

import pytest

from ingle.api_server.model.vm import Acceleration, Init
from ingle.api_server.model.warm import Machine, is_key
from unit.api_server.vmms import VM

MACHINE = Machine.of(VM, Acceleration.TCG, "engine 1.0", "agent 1")


def other(value: object) -> Any:
    if isinstance(value, Acceleration):
        return Acceleration.KVM
    if isinstance(value, Init):
        return Init.IMAGE
    return value + 1 if isinstance(value, int) else f"{value}x"


@pytest.mark.parametrize("name", [field.name for field in fields(Machine)])
def test_whatever_differs_makes_it_another_one(name: str) -> None:
    changed: dict[str, Any] = {name: other(getattr(MACHINE, name))}
    another = replace(MACHINE, **changed)
    assert another.key != MACHINE.key
    assert Machine.from_json(another.as_json()) == another


def test_the_same_machine_has_the_same_key_whoever_asks() -> None:
    again = replace(VM, id="ba9876543210", name="other", settings=replace(VM.settings, env={"A": "b"}))
    assert Machine.of(again, Acceleration.TCG, "engine 1.0", "agent 1").key == MACHINE.key
    assert is_key(MACHINE.key)


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, ".work"])
def test_what_is_no_key(text: str) -> None:
    assert not is_key(text)

"""The gRPC surface changes only on purpose: by a reviewed change of surface.golden."""

from collections.abc import Iterable
from difflib import unified_diff
from enum import Enum
from pathlib import Path

from contract.surface_text import compiled_files, render
from ingle.api_server.model.errors import Reason
from ingle.api_server.model.operation import OperationKind, OperationState
from ingle.v1.error_pb2 import ErrorReason
from ingle.v1.operation_pb2 import OperationKind as ProtoOperationKind
from ingle.v1.operation_pb2 import OperationState as ProtoOperationState

GOLDEN = Path(__file__).with_name("surface.golden")


def test_compiled_contract_is_the_golden_one() -> None:
    _assert_golden(render(compiled_files()))


def test_reasons_of_the_model_are_those_of_the_contract() -> None:
    assert _names_and_numbers(Reason) == _without_prefix(ErrorReason.items(), "ERROR_REASON_")


def test_operation_kinds_of_the_model_are_those_of_the_contract() -> None:
    assert _names_and_numbers(OperationKind) == _without_prefix(ProtoOperationKind.items(), "OPERATION_KIND_")


def test_operation_states_of_the_model_are_those_of_the_contract() -> None:
    assert _names_and_numbers(OperationState) == _without_prefix(ProtoOperationState.items(), "OPERATION_STATE_")


def _assert_golden(surface: str) -> None:
    difference = "\n".join(unified_diff(GOLDEN.read_text().splitlines(), surface.splitlines(), n=1, lineterm=""))
    assert not difference, f"`make surface-accept` accepts this:\n{difference}"


def _names_and_numbers(enum: type[Enum]) -> dict[str, object]:
    return {member.name: member.value for member in enum}


def _without_prefix(values: Iterable[tuple[str, int]], prefix: str) -> dict[str, object]:
    """An enum of the contract, less its UNSPECIFIED."""
    return {name.removeprefix(prefix): number for name, number in values if number}

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

# What an import of all of dev.ingle.v1 would hide or make ambiguous.
_JAVA_LANG = set(
    "Boolean Byte Character Class Comparable Compiler Deprecated Double Enum Error Exception Float Integer "
    "Iterable Long Math Module Number Object Override Package Process Readable Record Runnable Runtime "
    "Short String System Thread Throwable Void".split()
)
# Macros of C libraries and compilers, in the place of which C++ would have no accessor.
_MACROS = set("stdin stdout stderr errno unix linux major minor assert EOF NULL TRUE FALSE DOMAIN".split())


def test_compiled_contract_is_the_golden_one() -> None:
    _assert_golden(render(compiled_files()))


def test_reasons_of_the_model_are_those_of_the_contract() -> None:
    assert _names_and_numbers(Reason) == _without_prefix(ErrorReason.items(), "ERROR_REASON_")


def test_operation_kinds_of_the_model_are_those_of_the_contract() -> None:
    assert _names_and_numbers(OperationKind) == _without_prefix(ProtoOperationKind.items(), "OPERATION_KIND_")


def test_operation_states_of_the_model_are_those_of_the_contract() -> None:
    assert _names_and_numbers(OperationState) == _without_prefix(ProtoOperationState.items(), "OPERATION_STATE_")


def test_no_name_is_taken_in_a_language_of_clients() -> None:
    files = [file for file in compiled_files() if file.package == "ingle.v1"]
    types = {item.name for file in files for item in file.message_type}
    types |= {item.name for file in files for item in file.enum_type}
    types |= {item.name for file in files for item in file.service}
    types |= {file.options.java_outer_classname for file in files}
    assert not types & _JAVA_LANG
    fields = {field.name for file in files for message in file.message_type for field in message.field}
    assert not fields & _MACROS


def test_every_file_says_where_its_code_goes() -> None:
    for file in compiled_files():
        if file.package == "ingle.v1":
            options = file.options
            assert options.go_package == "ingle.dev/ingle/v1;inglev1"
            assert (options.java_package, options.java_multiple_files) == ("dev.ingle.v1", True)
            assert options.csharp_namespace == "Ingle.V1"


def _assert_golden(surface: str) -> None:
    difference = "\n".join(unified_diff(GOLDEN.read_text().splitlines(), surface.splitlines(), n=1, lineterm=""))
    assert not difference, f"`make surface-accept` accepts this:\n{difference}"


def _names_and_numbers(enum: type[Enum]) -> dict[str, object]:
    return {member.name: member.value for member in enum}


def _without_prefix(values: Iterable[tuple[str, int]], prefix: str) -> dict[str, object]:
    """An enum of the contract, less its UNSPECIFIED."""
    return {name.removeprefix(prefix): number for name, number in values if number}

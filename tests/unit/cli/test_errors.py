"""What a failure looks like, and the exit code it makes."""

import pytest

from ingle.cli.client import call_failed
from ingle.cli.errors import _WHEN_RUNNING_A_COMMAND, CliError, Failure
from ingle.cli.printable import printable
from ingle.cli.transport import Status
from ingle.v1.error_pb2 import ErrorReason


def test_text_has_what_there_is() -> None:
    assert Failure("IN_USE", "it is in use").as_text() == "ingle: it is in use"
    assert Failure("IN_USE", "it is in use", "wait", "op-1", "web").as_text().splitlines() == [
        "ingle: web: it is in use",
        "  remedy: wait",
        "  op_id:  op-1",
    ]


def test_escape_sequences_of_a_guest_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in Failure("VMM_FAILED", "said \x1b[2J\x07boo\r").as_text()
    assert printable("ünïcödé\n\tand lines") == "ünïcödé\n\tand lines"


def test_line_ends_of_a_console_are_line_ends() -> None:
    assert printable("panic\r\nrebooting\r\n\r") == "panic\nrebooting\n\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("COMMAND_NOT_FOUND", 127),
        ("COMMAND_NOT_EXECUTABLE", 126),
        ("GUEST_USER_NOT_FOUND", 126),
        ("GUEST_DIRECTORY_NOT_FOUND", 126),
        ("VM_NOT_FOUND", 125),
        ("SERVER_UNREACHABLE", 125),
    ],
)
def test_exit_codes_while_a_command_is_run(reason: str, code: int) -> None:
    assert CliError(Failure(reason, "")).exit_code == 1
    assert CliError(Failure(reason, "")).while_running_a_command().exit_code == code


def test_codes_are_given_to_reasons_that_exist() -> None:
    assert {f"ERROR_REASON_{reason}" for reason in _WHEN_RUNNING_A_COMMAND} <= set(ErrorReason.keys())


def test_a_status_without_details_still_says_something() -> None:
    assert call_failed(Status(14, "gone")).failures == (Failure("SERVER_UNREACHABLE", "gone", "ingle server status"),)
    assert call_failed(Status(2, "", op_id="op-1")).failures == (Failure("INTERNAL", "gRPC status 2", op_id="op-1"),)

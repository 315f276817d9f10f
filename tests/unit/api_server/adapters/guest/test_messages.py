"""What a guest says is checked before it is believed or shown."""

import math

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import messages
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AgentInfo, ExecSpec, Exited

BOOT_ID = "0123abcd-0123-4567-89ab-0123456789ab"


def test_an_error_keeps_its_reason() -> None:
    sent = agent_pb2.Error(code=agent_pb2.ERROR_CODE_COMMAND_NOT_FOUND, message="command 'x' not found")
    error = messages.failure(sent.SerializeToString())
    assert (error.reason, error.message) == (Reason.COMMAND_NOT_FOUND, "command 'x' not found")


@pytest.mark.parametrize("code", [c for c in agent_pb2.ErrorCode.values() if c != agent_pb2.ERROR_CODE_UNSPECIFIED])
def test_every_code_has_a_reason(code: agent_pb2.ErrorCode.ValueType) -> None:
    refusals_of_ours = {agent_pb2.ERROR_CODE_BAD_VERSION, agent_pb2.ERROR_CODE_BAD_TOKEN}
    error = messages.failure(agent_pb2.Error(code=code, message="why").SerializeToString())
    assert (error.reason is Reason.GUEST_PROTOCOL) == (code in refusals_of_ours)
    helped = refusals_of_ours | {
        agent_pb2.ERROR_CODE_SESSION_NOT_FOUND,
        agent_pb2.ERROR_CODE_SESSION_ATTACHED,
        agent_pb2.ERROR_CODE_USER_NOT_FOUND,
        agent_pb2.ERROR_CODE_GROUP_NOT_FOUND,
        agent_pb2.ERROR_CODE_LIMIT_REFUSED,
        agent_pb2.ERROR_CODE_CONNECTION_REFUSED,
        agent_pb2.ERROR_CODE_INIT_NOT_FOUND,
        agent_pb2.ERROR_CODE_IDENTITY_PENDING,
        agent_pb2.ERROR_CODE_RESTING,
        agent_pb2.ERROR_CODE_RESTLESS,
    }
    about_files = code in range(20, 40)
    assert about_files or bool(error.remedy) == (code in helped)


@pytest.mark.parametrize(
    "code",
    [
        code
        for name, code in agent_pb2.ErrorCode.items()
        if code in range(20, 40) and name != "ERROR_CODE_FILE_TOO_LARGE"  # nothing to type makes a file system larger
    ],
)
def test_a_refusal_about_files_has_a_reason_of_its_own_and_a_remedy(code: agent_pb2.ErrorCode.ValueType) -> None:
    error = messages.failure(agent_pb2.Error(code=code, message="why").SerializeToString())
    assert error.remedy
    name = agent_pb2.ErrorCode.Name(code).removeprefix("ERROR_CODE_")
    assert error.reason.name in {name, f"GUEST_{name}", "GUEST_DISK_FULL" if name == "NO_SPACE" else name}


def test_an_unknown_code_is_a_broken_protocol() -> None:
    assert messages.failure(agent_pb2.Error(code=9999).SerializeToString()).reason is Reason.GUEST_PROTOCOL  # type: ignore[arg-type]


def test_a_guests_text_cannot_drive_a_terminal_or_fill_it() -> None:
    assert messages.printable("\x1b[2Jgone\r\nnew line\x00") == " [2Jgone  new line "
    assert len(messages.printable("long" * 1000)) == 500


@pytest.mark.parametrize("boot_id", ["", "x" * 36, BOOT_ID.upper(), BOOT_ID + "\n"])
def test_a_boot_id_is_a_uuid(boot_id: str) -> None:
    with pytest.raises(GuestError) as caught:
        messages.agent_info(agent_pb2.HelloOk(), agent_pb2.PingResponse(boot_id=boot_id))
    assert caught.value.reason is Reason.GUEST_PROTOCOL


def test_a_ping_answer() -> None:
    answer = agent_pb2.PingResponse(boot_id=BOOT_ID, uptime_milliseconds=1500)
    assert messages.agent_info(agent_pb2.HelloOk(agent_version="1.2"), answer) == AgentInfo("1.2", BOOT_ID, 1.5)


def test_an_exit() -> None:
    sent = agent_pb2.ExecExited(exit_code=137, signal=9, timed_out=True)
    assert messages.exited(sent.SerializeToString()) == Exited(137, 9, True)


@pytest.mark.parametrize(("exit_code", "signal"), [(0, 0), (255, 0), (129, 1), (192, 64)])
def test_every_possible_exit_is_taken(exit_code: int, signal: int) -> None:
    sent = agent_pb2.ExecExited(exit_code=exit_code, signal=signal)
    assert messages.exited(sent.SerializeToString()) == Exited(exit_code, signal)


@pytest.mark.parametrize(("exit_code", "signal"), [(256, 0), (2**32 - 1, 0), (0, 65)])
def test_an_impossible_exit_is_refused(exit_code: int, signal: int) -> None:
    with pytest.raises(GuestError) as caught:
        messages.exited(agent_pb2.ExecExited(exit_code=exit_code, signal=signal).SerializeToString())
    assert caught.value.reason is Reason.GUEST_PROTOCOL


@pytest.mark.parametrize("load", [math.nan, math.inf, -1.0])
def test_a_load_is_a_number(load: float) -> None:
    with pytest.raises(GuestError) as caught:
        messages.stats(agent_pb2.StatsResponse(load_5m=load))
    assert caught.value.reason is Reason.GUEST_PROTOCOL


def test_garbage_is_no_message() -> None:
    with pytest.raises(GuestError) as caught:
        messages.parse(agent_pb2.PingResponse, b"\xff\xff")
    assert caught.value.reason is Reason.GUEST_PROTOCOL


@pytest.mark.parametrize(("seconds", "milliseconds"), [(None, 0), (0.0001, 1), (1.5, 1500), (0.0, 1)])
def test_a_timeout_never_becomes_none(seconds: float | None, milliseconds: int) -> None:
    spec = ExecSpec(("true",), timeout_seconds=seconds)
    assert messages.exec_request(spec).exec.timeout_milliseconds == milliseconds

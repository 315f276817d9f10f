"""A command as one question and one answer, through gRPC."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from contract.one_vm import OneVm, behind_a_gate, new_server
from harness import refusal
from ingle.v1 import guest_pb2, guest_pb2_grpc

from .conftest import Agent, Gone


@pytest.fixture
async def guest(agent: Agent, tmp_path: Path) -> AsyncIterator["guest_pb2_grpc.GuestServiceAsyncStub"]:
    async with (
        behind_a_gate(new_server(OneVm(str(agent.path))), tmp_path) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield guest_pb2_grpc.GuestServiceStub(channel)


def asked(script: str, **fields: object) -> guest_pb2.RunRequest:
    start = guest_pb2.ExecStart(vm="web", argv=["sh", "-c", script])
    return guest_pb2.RunRequest(start=start, **fields)  # type: ignore[arg-type]


async def test_it_has_all_of_input_and_output_and_how_the_command_ended(
    guest: "guest_pb2_grpc.GuestServiceAsyncStub",
) -> None:
    answer = await guest.Run(asked("tr a-z A-Z; echo no >&2; exit 3", stdin_data=b"hello"))
    assert (answer.stdout_data, answer.stderr_data, answer.exited.exit_code) == (b"HELLO", b"no\n", 3)
    assert not answer.stdout_truncated
    assert not answer.stderr_truncated


async def test_without_input_the_command_sees_its_end(guest: "guest_pb2_grpc.GuestServiceAsyncStub") -> None:
    assert (await guest.Run(asked("cat; exit 4"))).exited.exit_code == 4


@pytest.mark.parametrize(("most", "kept", "more"), [(4, b"1234", True), (5, b"12345", False), (0, b"12345", False)])
async def test_output_that_is_not_kept_is_told_and_holds_nothing_up(
    guest: "guest_pb2_grpc.GuestServiceAsyncStub", most: int, kept: bytes, more: bool
) -> None:
    answer = await guest.Run(asked("printf 12345; yes | head -c 3000000 >&2; exit 5", max_output_bytes=most))
    assert (answer.stdout_data, answer.stdout_truncated) == (kept, more)
    assert (len(answer.stderr_data), answer.stderr_truncated) == (most or 2**20, True)
    assert answer.exited.exit_code == 5


async def test_a_command_whose_caller_leaves_is_killed(
    guest: "guest_pb2_grpc.GuestServiceAsyncStub", tmp_path: Path, gone: Gone
) -> None:
    call = guest.Run(asked(f"echo $$ >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 1000"))
    async with asyncio.timeout(20):
        while not (tmp_path / "pid").exists():
            await asyncio.sleep(0.005)
    call.cancel()
    await gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("field", ["start.detach", "start.open_stdin", "max_output_bytes", "stdin_data"])
async def test_what_is_no_single_question_is_refused(guest: "guest_pb2_grpc.GuestServiceAsyncStub", field: str) -> None:
    request = asked("true")
    match field:
        case "max_output_bytes":
            request.max_output_bytes = 2**20 + 1
        case "stdin_data":
            request.stdin_data = bytes(2**20 + 1)
        case _:
            setattr(request.start, field.partition(".")[2], True)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await guest.Run(request)
    assert refusal(refused.value).reason == "INVALID_ARGUMENT"
    assert field in (refused.value.details() or "")

"""The protocol byte for byte: what an agent answers to callers that break the rules."""

import asyncio
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.model.errors import GuestError, Reason

from .conftest import Agent

HELLO, HELLO_OK, ERROR, REQUEST, RESPONSE, STARTED, EXITED, SIGNAL, WINDOW = range(1, 10)
STDIN, STDIN_EOF, STDOUT, STDERR = range(16, 20)

MIB = 1024 * 1024

StartAgent = Callable[..., Agent]


def frame(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IB", 1 + len(payload), kind) + payload


def hello(version: int = 1, token: bytes = b"") -> bytes:
    return frame(HELLO, agent_pb2.Hello(protocol_version=version, token=token).SerializeToString())


def request(operation: agent_pb2.PingRequest | agent_pb2.ExecRequest) -> bytes:
    name = {agent_pb2.PingRequest: "ping", agent_pb2.ExecRequest: "exec"}[type(operation)]
    message = agent_pb2.Request()
    getattr(message, name).CopyFrom(operation)
    return frame(REQUEST, message.SerializeToString())


PING = request(agent_pb2.PingRequest())
CAT = request(agent_pb2.ExecRequest(argv=["cat"], stdin=True))
TRUE = request(agent_pb2.ExecRequest(argv=["true"]))
SLEEP = request(agent_pb2.ExecRequest(argv=["sleep", "1000"]))


async def talk(agent: Agent, *pieces: bytes, hang_up: bool = False) -> list[tuple[int, bytes]]:
    """Say it all, and return the frames of the answer up to its end."""
    reader, writer = await asyncio.open_unix_connection(agent.path)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if hang_up:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(-1), 20)
    finally:
        writer.close()
    frames = []
    while answer:
        length, kind = struct.unpack(">IB", answer[:5])
        frames.append((kind, answer[5 : 4 + length]))
        answer = answer[4 + length :]
    return frames


def kinds(frames: list[tuple[int, bytes]]) -> list[int]:
    return [kind for kind, _ in frames]


def refusal(frames: list[tuple[int, bytes]]) -> agent_pb2.Error:
    """The one ERROR at the end."""
    assert kinds(frames).count(ERROR) == 1
    assert frames[-1][0] == ERROR
    return agent_pb2.Error.FromString(frames[-1][1])


async def test_one_question_one_answer_and_the_end(agent: Agent) -> None:
    answer = await talk(agent, hello() + PING)
    assert kinds(answer) == [HELLO_OK, RESPONSE]
    assert agent_pb2.HelloOk.FromString(answer[0][1]) == agent_pb2.HelloOk(protocol_version=1, agent_version="tested")


async def test_hello_is_answered_without_a_request_yet(agent: Agent) -> None:
    reader, writer = await asyncio.open_unix_connection(agent.path)
    writer.write(hello())
    assert (await reader.readexactly(5))[4] == HELLO_OK
    writer.close()


async def test_frames_may_be_cut_anywhere(agent: Agent) -> None:
    assert kinds(await talk(agent, *(bytes((byte,)) for byte in hello() + PING))) == [HELLO_OK, RESPONSE]


async def test_a_message_after_the_end_does_nothing(agent: Agent) -> None:
    assert kinds(await talk(agent, hello() + PING + PING)) == [HELLO_OK, RESPONSE]


async def test_a_wrong_version_is_told_the_right_one(agent: Agent) -> None:
    error = refusal(await talk(agent, hello(version=2) + PING))
    assert error.code == agent_pb2.ERROR_CODE_BAD_VERSION
    assert "version 1" in error.message


@pytest.mark.parametrize("token", [b"", b"x", b"y" * 32, b"x" * 31, b"x" * 33])
async def test_a_wrong_token_is_refused(start_agent: StartAgent, tmp_path: Path, token: bytes) -> None:
    (tmp_path / "token").write_bytes(b"x" * 32)
    agent = start_agent("--token-file", str(tmp_path / "token"))
    answer = await talk(agent, hello(token=token) + PING)
    assert kinds(answer) == [ERROR]
    assert refusal(answer).code == agent_pb2.ERROR_CODE_BAD_TOKEN
    with pytest.raises(GuestError) as caught:
        await agent.channel(token).ping()
    assert caught.value.reason is Reason.GUEST_PROTOCOL


async def test_the_right_token_is_taken(start_agent: StartAgent, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"x" * 32)
    agent = start_agent("--token-file", str(tmp_path / "token"))
    assert (await agent.channel(b"x" * 32).ping()).agent_version == "tested"


async def test_who_keeps_silent_is_sent_away(start_agent: StartAgent) -> None:
    agent = start_agent("--hello-timeout", "50ms")
    for said in (b"", hello()[:3], hello(), hello() + PING[:-1]):
        error = refusal(await talk(agent, said))
        assert error.code == agent_pb2.ERROR_CODE_BAD_REQUEST
        assert "50ms" in error.message


async def test_unless_told_otherwise_an_agent_listens_to_silence_for_five_seconds(start_agent: StartAgent) -> None:
    assert "no request within 5s" in refusal(await talk(start_agent())).message


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(frame(HELLO)[:3] + b"\0", id="zero length"),
        pytest.param(struct.pack(">IB", 2**32 - 1, HELLO), id="4 GiB"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(PING, id="no hello"),
        pytest.param(frame(HELLO, bytes(1025)), id="a kilobyte of hello"),
        pytest.param(frame(HELLO, b"\xff" * 10), id="hello that isn't protobuf"),
        pytest.param(hello() + hello(), id="hello twice"),
        pytest.param(hello() + frame(REQUEST), id="a request for nothing"),
        pytest.param(hello() + frame(REQUEST, b"\xff" * 10), id="a request that isn't protobuf"),
        pytest.param(hello() + struct.pack(">IB", MIB + 2, REQUEST), id="1 MiB + 1"),
        pytest.param(hello() + frame(99), id="an unknown type"),
        pytest.param(hello() + CAT + frame(99), id="an unknown type to a command"),
        pytest.param(hello() + CAT + PING, id="a second operation"),
        pytest.param(hello() + CAT + frame(STDIN, bytes(256 * 1024 + 1)), id="more than the window"),
        pytest.param(hello() + CAT + bytes(4), id="zero length to a command"),
        pytest.param(hello() + CAT + struct.pack(">IB", MIB + 2, STDIN), id="1 MiB + 1 to a command"),
        pytest.param(hello() + SLEEP + frame(STDIN, b"x"), id="stdin for a command without"),
        pytest.param(hello() + SLEEP + frame(SIGNAL), id="signal 0"),
        pytest.param(
            hello() + SLEEP + frame(SIGNAL, agent_pb2.ExecSignal(signal=65).SerializeToString()), id="signal 65"
        ),
        pytest.param(hello() + SLEEP + frame(SIGNAL, b"\xff"), id="a signal that isn't protobuf"),
    ],
)
async def test_a_broken_rule_is_one_error_and_the_end(agent: Agent, said: bytes) -> None:
    error = refusal(await talk(agent, said))
    assert error.code == agent_pb2.ERROR_CODE_BAD_REQUEST
    assert error.message


async def test_exactly_a_megabyte_of_request_is_allowed(agent: Agent) -> None:
    message = agent_pb2.Request(exec=agent_pb2.ExecRequest(argv=["true"], env={"LARGE": "x" * (MIB - 100)}))
    message.exec.env["LARGE"] += "x" * (MIB - message.ByteSize())
    assert message.ByteSize() == MIB
    error = refusal(await talk(agent, hello() + frame(REQUEST, message.SerializeToString())))
    assert error.code == agent_pb2.ERROR_CODE_COMMAND_NOT_EXECUTABLE  # only execve(2) finds it too long


async def test_half_a_frame_and_good_bye_is_answered_with_nothing(agent: Agent) -> None:
    assert await talk(agent, hello()[:4], hang_up=True) == []


async def test_the_agent_answers_others_while_one_says_nothing(agent: Agent) -> None:
    _, silent = await asyncio.open_unix_connection(agent.path)
    assert kinds(await talk(agent, hello() + TRUE)) == [HELLO_OK, STARTED, EXITED]
    silent.close()


async def test_the_window_is_granted_as_input_is_read(agent: Agent) -> None:
    whole_window = frame(STDIN, bytes(256 * 1024))
    answer = await talk(
        agent, hello() + request(agent_pb2.ExecRequest(argv=["wc", "-c"], stdin=True)) + whole_window + frame(STDIN_EOF)
    )
    granted = sum(agent_pb2.ExecWindow.FromString(payload).bytes for kind, payload in answer if kind == WINDOW)
    assert 192 * 1024 < granted <= 256 * 1024
    assert (STDOUT, b"262144\n") in answer


async def test_callers_who_say_nothing_make_room_for_new_ones(start_agent: StartAgent) -> None:
    agent = start_agent("--hello-timeout", "1h")
    silent = [await asyncio.open_unix_connection(agent.path) for _ in range(900)]
    await agent.channel().ping()
    assert len(os.listdir(f"/proc/{agent.process.pid}/fd")) < 300
    for reader, _ in silent[:600]:  # the oldest have gone
        assert await reader.read(1) == b""
    _, newest = silent[-1]
    newest.write(hello() + PING)
    assert await silent[-1][0].readexactly(5) != b""
    for _, writer in silent:
        writer.close()


async def test_a_caller_who_has_said_hello_is_not_shed(start_agent: StartAgent) -> None:
    agent = start_agent("--hello-timeout", "1h")
    reader, known = await asyncio.open_unix_connection(agent.path)
    known.write(hello() + CAT)
    assert (await reader.readexactly(5))[4] == HELLO_OK
    silent = [await asyncio.open_unix_connection(agent.path) for _ in range(600)]
    await agent.channel().ping()
    known.write(frame(STDIN, b"still here") + frame(STDIN_EOF))
    assert b"still here" in await reader.read(-1)
    for _, writer in (*silent, (reader, known)):
        writer.close()

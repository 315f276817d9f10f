"""The least that a client of an agent can do: blocking, nothing parsed. What it takes is the agent's share."""

import socket
from pathlib import Path

from bench.measure import timed
from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest.frames import HEADER_SIZE, FrameType, encode

_LENGTH_SIZE = 4


class BareClient:
    """Asks by bytes that were made before, and reads on until a frame of the last type."""

    def __init__(self, path: Path, question: bytes, last: int) -> None:
        self._path = str(path)
        self._question = question
        self._last = last

    def ask(self) -> float:
        """Seconds."""
        return self.ask_at_once(1)

    def ask_at_once(self, count: int) -> float:
        """Seconds until the last of so many callers has its answer."""
        return timed(lambda: self._ask(count))

    def _ask(self, count: int) -> None:
        streams = [socket.socket(socket.AF_UNIX) for _ in range(count)]
        for stream in streams:
            stream.connect(self._path)
            stream.sendall(self._question)
        for stream in streams:
            with stream:
                answer = b""
                while _last_type(answer) != self._last:
                    piece = stream.recv(65536)
                    assert piece, "the agent hung up"
                    answer += piece


def exec_true(path: Path) -> BareClient:
    """`true`."""
    request = agent_pb2.Request(exec=agent_pb2.ExecRequest(argv=["true"]))
    return BareClient(path, _asking(request), FrameType.EXITED)


def refused(path: Path, token: bytes) -> BareClient:
    """Until the agent has said that it does not know us."""
    request = agent_pb2.Request(ping=agent_pb2.PingRequest())
    return BareClient(path, _asking(request, token), FrameType.ERROR)


def write_file(path: Path, file: Path, content: bytes) -> BareClient:
    """A file, replaced."""
    request = agent_pb2.Request(write_file=agent_pb2.WriteFileRequest(path=str(file)))
    data = encode(FrameType.DATA, content) + encode(FrameType.DATA_END, b"")
    return BareClient(path, _asking(request) + data, FrameType.RESPONSE)


def read_file(path: Path, file: Path) -> BareClient:
    """A file."""
    request = agent_pb2.Request(read_file=agent_pb2.ReadFileRequest(path=str(file)))
    return BareClient(path, _asking(request), FrameType.RESPONSE)


def _asking(request: agent_pb2.Request, token: bytes = b"") -> bytes:
    hello = agent_pb2.Hello(protocol_version=1, token=token)
    return encode(FrameType.HELLO, hello.SerializeToString()) + encode(FrameType.REQUEST, request.SerializeToString())


def _last_type(answer: bytes) -> int | None:
    """The type of the last whole frame."""
    found = None
    while len(answer) >= HEADER_SIZE:
        end = _LENGTH_SIZE + int.from_bytes(answer[:_LENGTH_SIZE], "big")
        if len(answer) < end:
            break
        found = answer[_LENGTH_SIZE]
        answer = answer[end:]
    return found

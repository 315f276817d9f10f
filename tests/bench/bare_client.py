"""The least that a client of the agent can do: blocking, nothing parsed. What it takes is the agent's share."""

import socket
from pathlib import Path

from bench.measure import timed
from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest.frames import HEADER_SIZE, FrameType, encode

_LENGTH_SIZE = 4


class BareClient:
    """`true`, by bytes that were made before."""

    def __init__(self, path: Path, token: bytes = b"") -> None:
        self._path = str(path)
        hello = agent_pb2.Hello(protocol_version=1, token=token)
        request = agent_pb2.Request(exec=agent_pb2.ExecRequest(argv=["true"]))
        self._question = encode(FrameType.HELLO, hello.SerializeToString()) + encode(
            FrameType.REQUEST, request.SerializeToString()
        )

    def run(self) -> float:
        """Seconds."""
        return timed(lambda: self._ask(FrameType.EXITED))

    def be_refused(self) -> float:
        """Seconds until the agent has said that it does not know us."""
        return timed(lambda: self._ask(FrameType.ERROR))

    def _ask(self, last: FrameType) -> None:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(self._path)
            stream.sendall(self._question)
            answer = b""
            while _last_type(answer) != last:
                piece = stream.recv(65536)
                assert piece, "the agent hung up"
                answer += piece


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

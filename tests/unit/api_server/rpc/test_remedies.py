"""Remedies can be typed as they are."""

import pytest
from google.protobuf.message import Message

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest.messages import failure
from ingle.api_server.rpc.remedies import with_names
from ingle.v1 import guest_pb2


def test_what_the_caller_named_is_in_them() -> None:
    request = guest_pb2.ReadFileRequest(vm="web", path="/srv/my file")
    remedy = with_names("ingle vm file ls {vm} {directory}; ingle vm file stat {vm} {path}", request)
    assert remedy == "ingle vm file ls web /srv; ingle vm file stat web '/srv/my file'"


def test_a_streams_first_message_has_the_names() -> None:
    request = guest_pb2.ExecRequest(start=guest_pb2.ExecStart(vm="web"))
    assert with_names("ingle vm exec {vm} -- cat /proc/mounts", request) == "ingle vm exec web -- cat /proc/mounts"


@pytest.mark.parametrize(
    ("request_", "remedy"),
    [
        (guest_pb2.ReadFileRequest(vm="web", path="/a/b c"), "ingle vm file ls web /a"),
        (guest_pb2.StatFileRequest(vm="web", path="b"), "ingle vm file ls web ."),
        (guest_pb2.StatFileRequest(vm="web", raw_path=b"/a b/c"), "ingle vm file ls web '/a b'"),
        (guest_pb2.ReadFileRequest(vm="web"), "ingle vm file ls web ."),
        (
            guest_pb2.WriteFileRequest(start=guest_pb2.WriteFileStart(vm="web", path="/a/b")),
            "ingle vm file mkdir -p web /a",
        ),
        (
            guest_pb2.CopyInRequest(start=guest_pb2.CopyInStart(vm="web", path="/a/b")),
            "ingle vm file mkdir -p web /a/b",
        ),
        (guest_pb2.MakeDirectoryRequest(vm="web", path="/a/b"), "ingle vm file mkdir -p web /a"),
        (
            guest_pb2.RenameRequest(vm="web", path="/a/b", new_path="/c/d"),
            "ingle vm file ls web /a; ingle vm file mkdir -p web /c",
        ),
        (guest_pb2.ListPortsRequest(vm="web"), ""),
    ],
)
def test_what_is_missing_is_looked_for_or_made(request_: Message, remedy: str) -> None:
    assert with_names("{find_or_make}", request_) == remedy


def test_without_the_names_there_is_none() -> None:
    assert with_names("ingle vm logs {vm}", None) == ""
    assert with_names("ingle vm file stat {vm} {path}", guest_pb2.ListPortsRequest(vm="web")) == ""
    assert with_names("ingle doctor", None) == "ingle doctor"


@pytest.mark.parametrize("code", agent_pb2.ErrorCode.values())
def test_no_error_of_a_guest_leaves_a_word_to_fill_in(code: "agent_pb2.ErrorCode.ValueType") -> None:
    error = failure(agent_pb2.Error(code=code, message="refused").SerializeToString())
    remedy = with_names(error.remedy, guest_pb2.RenameRequest(vm="web", path="/a", new_path="/b"))
    assert not {"VM", "NAME", "PATH", "SIZE"} & set(remedy.replace(":", " ").split())
    assert "{" not in remedy
    assert bool(remedy) == bool(error.remedy)

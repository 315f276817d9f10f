"""Every list has pages, which fit into what clients take and stay whole while things come and go."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from contract.surface_text import compiled_files
from harness import Server, refused
from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.rpc.paging import MOST_A_PAGE, by_time, newest_first, page
from ingle.v1 import image_pb2, operation_pb2, vm_pb2

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOUNDED = {"ListPorts", "ListNeededModules"}
"""Lists without pages: their comments say how much they hold at most."""


@dataclass(frozen=True)
class Thing:
    id: str
    created_at: datetime
    size: int = 0


def things(*numbers: int, size: int = 0) -> list[Thing]:
    return [Thing(f"{number:04}", NOW + timedelta(microseconds=number), size) for number in numbers]


def told(thing: Thing) -> vm_pb2.Vm:
    return vm_pb2.Vm(id=thing.id, error="x" * thing.size)


def ids(messages: list[vm_pb2.Vm]) -> list[str]:
    return [message.id for message in messages]


def test_every_list_has_pages() -> None:
    (file_by_name,) = [{file.name: file for file in compiled_files() if file.package == "ingle.v1"}]
    messages = {message.name: message for file in file_by_name.values() for message in file.message_type}
    for file in file_by_name.values():
        for method in (method for service in file.service for method in service.method):
            if method.name.startswith("List") and method.name not in BOUNDED:
                request = {field.name for field in messages[f"{method.name}Request"].field}
                response = {field.name for field in messages[f"{method.name}Response"].field}
                assert {"page_size", "page_token"} <= request, method.name
                assert "next_page_token" in response, method.name


def test_all_is_told_once_whatever_comes_and_goes_between_two_pages() -> None:
    first, token = page(things(1, 3, 5, 7), by_time, vm_pb2.ListVmsRequest(page_size=2), told)
    assert ids(first) == ["0001", "0003"]
    request = vm_pb2.ListVmsRequest(page_size=2, page_token=token)
    without_the_last_one_told, token = page(things(1, 2, 5, 6, 7), by_time, request, told)
    assert ids(without_the_last_one_told) == ["0005", "0006"]
    rest, token = page(things(5, 7), by_time, vm_pb2.ListVmsRequest(page_token=token), told)
    assert (ids(rest), token) == (["0007"], "")


def test_newest_first_pages_to_the_oldest() -> None:
    first, token = page(things(1, 2, 3), newest_first, vm_pb2.ListVmsRequest(page_size=2), told)
    assert ids(first) == ["0003", "0002"]
    rest, token = page(things(1, 2, 3, 4), newest_first, vm_pb2.ListVmsRequest(page_token=token), told)
    assert (ids(rest), token) == (["0001"], "")


def test_a_page_that_is_just_full_is_the_last_one() -> None:
    assert page(things(1, 2), by_time, vm_pb2.ListVmsRequest(page_size=2), told)[1] == ""
    assert page([], by_time, vm_pb2.ListVmsRequest(), told) == ([], "")


def test_a_page_fits_into_4_mib_and_holds_one_item_at_least() -> None:
    many = things(*range(100), size=100_000)
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        some, token = page(many, by_time, vm_pb2.ListVmsRequest(page_token=token), told)
        answer = vm_pb2.ListVmsResponse(vms=some, next_page_token=token)
        assert answer.ByteSize() < 4 * 1024 * 1024
        seen += ids(some)
        pages += 1
    assert (seen, pages) == ([thing.id for thing in many], 4)
    assert ids(page(things(1, size=3_500_000), by_time, vm_pb2.ListVmsRequest(), told)[0]) == ["0001"]


BAD_KEYS: list[tuple[object, ...]] = [("a", 1), (1,), (1, "a", 2), (None, None), ([], {}), (1.5, "a"), (True, "a")]


def token_of(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


@pytest.mark.parametrize(
    "token",
    ["x", "!!!", "字", token_of(), token_of("ListVmsRequest"), token_of("ListImagesRequest", 1, "a"), "W1td" * 20]
    + [token_of("ListVmsRequest", *key) for key in BAD_KEYS]
    + [base64.urlsafe_b64encode(b"[" * 100_000).decode()],
)
def test_a_token_of_ones_own_making_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match="next_page_token") as raised:
        page(things(1), by_time, vm_pb2.ListVmsRequest(page_token=token), told)
    assert raised.value.field == "page_token"


def test_a_page_that_is_too_large_is_refused(server: Server) -> None:
    error = refused(server.vms.ListVms, vm_pb2.ListVmsRequest(page_size=MOST_A_PAGE + 1))
    assert (error.reason, "1000" in error.message) == ("INVALID_ARGUMENT", True)
    call: Callable[..., object] = server.vms.ListVms
    assert refused(call, vm_pb2.ListVmsRequest(page_token="x")).reason == "INVALID_ARGUMENT"


def test_operations_of_a_server_are_told_page_by_page(server: Server) -> None:
    for _ in range(5):
        server.images.PruneImages(image_pb2.PruneImagesRequest())
    everything = server.operations.ListOperations(operation_pb2.ListOperationsRequest())
    assert everything.next_page_token == ""
    seen, token = [], None
    while token != "":
        request = operation_pb2.ListOperationsRequest(page_size=2, page_token=token or "")
        answer = server.operations.ListOperations(request)
        assert len(answer.operations) <= 2
        seen += [operation.id for operation in answer.operations]
        token = answer.next_page_token
    assert len(seen) >= 5
    assert seen == [operation.id for operation in everything.operations]

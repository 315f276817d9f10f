"""A page of a directory fits into what clients take, whatever is in it."""

import os
from pathlib import Path

import grpc

from contract.one_vm import OneVm, behind_a_gate, new_server
from ingle.v1 import guest_pb2
from ingle.v1.guest_pb2_grpc import GuestServiceStub

from .conftest import Agent

COUNT = 5000


async def test_names_as_long_as_they_may_be_come_in_pages_below_4_mib(agent: Agent, tmp_path: Path) -> None:
    (directory := tmp_path / "much").mkdir()
    names = [b"%04d" % number + b"\xff" * 250 for number in range(COUNT)]
    for name in names:
        os.close(os.open(os.fsencode(directory) + b"/" + name, os.O_CREAT))
    seen: list[bytes] = []
    async with (
        behind_a_gate(new_server(OneVm(str(agent.path))), tmp_path) as address,
        grpc.aio.insecure_channel(address) as channel,  # with a client's usual limit
    ):
        request = guest_pb2.ListDirectoryRequest(vm="web", path=str(directory))
        pages = 0
        while pages == 0 or request.page_token:
            answer: guest_pb2.ListDirectoryResponse = await GuestServiceStub(channel).ListDirectory(request)
            seen += [entry.raw_name for entry in answer.entries]
            request.page_token = answer.next_page_token
            pages += 1
    assert (seen, pages > 1) == (names, True)

"""`ingle.testing.StandIn`, as somebody's tests use it."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
from google.protobuf.message import Message

from contract.test_error_details import fields
from harness import refused
from ingle.testing import SILENCE, Refusal, StandIn
from ingle.v1 import guest_pb2, image_pb2, system_pb2, vm_pb2
from ingle.v1.guest_pb2_grpc import GuestServiceStub
from ingle.v1.image_pb2_grpc import ImageServiceStub
from ingle.v1.system_pb2_grpc import SystemServiceStub
from ingle.v1.upload_pb2 import UploadEnd
from ingle.v1.vm_pb2_grpc import VmServiceStub

WEB = vm_pb2.GetVmResponse(vm=vm_pb2.Vm(name="web"))
HELLO = guest_pb2.ExecResponse(stdout_data=b"hello")


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as stand_in:
        yield stand_in


@pytest.fixture
def channel(stand_in: StandIn) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"unix:{stand_in.socket}") as channel:
        yield channel


def get(channel: grpc.Channel, vm: str = "web") -> vm_pb2.GetVmResponse:
    return VmServiceStub(channel).GetVm(vm_pb2.GetVmRequest(vm=vm))


def test_answers_come_in_turn_and_the_last_one_stays(stand_in: StandIn, channel: grpc.Channel) -> None:
    stand_in.answer("VmService.GetVm", Refusal("HOST_EXHAUSTED", "full"), WEB)
    assert refused(get, channel).reason == "HOST_EXHAUSTED"
    assert [get(channel), get(channel)] == [WEB, WEB]


def test_it_keeps_what_it_was_asked(stand_in: StandIn, channel: grpc.Channel) -> None:
    stand_in.answer("VmService.GetVm", WEB)
    VmServiceStub(channel).GetVm(vm_pb2.GetVmRequest(vm="web"), metadata=(("ingle-api-version", "1"),))
    assert stand_in.requests("VmService.GetVm") == [vm_pb2.GetVmRequest(vm="web")]
    (call,) = stand_in.calls
    assert (call.method, call.metadata["ingle-api-version"]) == ("VmService.GetVm", "1")


def test_a_refusal_is_as_the_server_has_it(stand_in: StandIn, channel: grpc.Channel) -> None:
    stand_in.answer("VmService.GetVm", Refusal("VM_NOT_FOUND", "no VM is called 'web'", "ingle vm list"))
    told = refused(get, channel)
    assert (told.code, told.reason) == (grpc.StatusCode.NOT_FOUND, "VM_NOT_FOUND")
    assert (told.message, told.remedy) == ("no VM is called 'web'", "ingle vm list")
    stand_in.answer("VmService.CreateVm", Refusal("INVALID_ARGUMENT", "too many", field="vcpus"))
    wish = vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(vcpus=99))
    assert fields(lambda: VmServiceStub(channel).CreateVm(wish)) == ["spec.vcpus"]


def test_a_method_without_an_answer_is_named(channel: grpc.Channel) -> None:
    told = refused(get, channel)
    assert (told.reason, told.message) == ("UNKNOWN_METHOD", "the test has no answer for VmService.GetVm")


def test_a_stream_can_break_off(stand_in: StandIn, channel: grpc.Channel) -> None:
    stand_in.answer("GuestService.Exec", [HELLO, Refusal("VM_ENDED", "the VM has ended")])
    start = guest_pb2.ExecRequest(start=guest_pb2.ExecStart(vm="web", argv=["cat"]))
    responses = GuestServiceStub(channel).Exec(iter([start]))
    assert next(responses) == HELLO
    assert refused(next, responses).reason == "VM_ENDED"


def test_a_stream_is_answered_though_its_caller_goes_on_and_what_that_says_is_kept(
    stand_in: StandIn, channel: grpc.Channel
) -> None:
    stand_in.answer(
        "GuestService.Exec", lambda first: [guest_pb2.ExecResponse(stdout_data=first.start.argv[0].encode()), SILENCE]
    )
    start = guest_pb2.ExecRequest(start=guest_pb2.ExecStart(vm="web", argv=["cat"], open_stdin=True))
    answered = asyncio.Event()

    async def requests() -> AsyncIterator[guest_pb2.ExecRequest]:
        yield start
        await answered.wait()
        yield guest_pb2.ExecRequest(stdin_data=b"more")

    async def talk() -> None:
        async with grpc.aio.insecure_channel(f"unix:{stand_in.socket}") as channel:
            call = GuestServiceStub(channel).Exec(requests())
            assert (await anext(aiter(call))).stdout_data == b"cat"
            answered.set()
            while len(stand_in.requests("GuestService.Exec")) < 2:
                await asyncio.sleep(0.01)
            call.cancel()

    asyncio.run(talk())


def test_an_upload_is_answered_at_its_end(stand_in: StandIn, channel: grpc.Channel) -> None:
    stand_in.answer("ImageService.RegisterImage", image_pb2.RegisterImageResponse())
    requests = [
        image_pb2.RegisterImageRequest(start=image_pb2.RegisterImageStart(name="mine")),
        image_pb2.RegisterImageRequest(end=UploadEnd()),
    ]
    ImageServiceStub(channel).RegisterImage(iter(requests))
    assert stand_in.requests("ImageService.RegisterImage") == requests


def test_silence_ends_at_the_callers_deadline(stand_in: StandIn, channel: grpc.Channel) -> None:
    stand_in.answer("SystemService.Ping", SILENCE)
    with pytest.raises(grpc.RpcError) as raised:
        SystemServiceStub(channel).Ping(system_pb2.PingRequest(), timeout=0.2)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("method", "answer", "told"),
    [
        ("VmService.Get", WEB, "'VmService.Get' is no method of ingle.v1"),
        ("VmService.GetVm", vm_pb2.Vm(), "answers with ingle.v1.GetVmResponse, and not with ingle.v1.Vm"),
        ("VmService.GetVm", [WEB, WEB], "ingle.v1.VmService.GetVm has one answer, and not 2"),
    ],
)
def test_what_the_contract_does_not_have_is_told_at_once(
    stand_in: StandIn, method: str, answer: Message | list[Message], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        stand_in.answer(method, answer)


def test_a_reason_that_the_contract_does_not_have_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="'VM_LOST' is no reason"):
        Refusal("VM_LOST", "")

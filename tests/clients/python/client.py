"""A client in Python, with code of its own making: python client.py SOCKET VM"""

import queue
import sys
from collections.abc import Iterator
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from ingle.v1 import guest_pb2, guest_pb2_grpc, upload_pb2, vm_pb2, vm_pb2_grpc

SOCKET, VM = sys.argv[1:]


class Requests:
    """What is sent, as it is said; None closes the stream."""

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[guest_pb2.ExecRequest | None] = queue.SimpleQueue()
        self.say = self._said.put

    def __iter__(self) -> Iterator[guest_pb2.ExecRequest]:
        return iter(self._said.get, None)


def tell(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")


def error_info(error: Any) -> error_details_pb2.ErrorInfo:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return info


def execute(guest: guest_pb2_grpc.GuestServiceStub) -> None:
    requests = Requests()
    call: Any = guest.Exec(iter(requests))
    tell("op_id", dict(call.initial_metadata())["ingle-op-id"])  # before anything was said
    start = guest_pb2.ExecStart(vm=VM, argv=["tr", "a-z", "A-Z"], open_stdin=True)
    requests.say(guest_pb2.ExecRequest(start=start))
    requests.say(guest_pb2.ExecRequest(stdin_data=b"hello"))
    requests.say(guest_pb2.ExecRequest(stdin_eof=guest_pb2.ExecStdinEof()))
    said = b""
    for response in call:
        said += response.stdout_data
        if response.HasField("exited"):
            tell("exec", said.decode(), response.exited.exit_code)
    requests.say(None)


def upload(guest: guest_pb2_grpc.GuestServiceStub) -> None:
    messages = [
        guest_pb2.WriteFileRequest(start=guest_pb2.WriteFileStart(vm=VM, path="/tmp/python")),
        guest_pb2.WriteFileRequest(data=b"python"),
        guest_pb2.WriteFileRequest(end=upload_pb2.UploadEnd()),
    ]
    tell("upload", guest.WriteFile(iter(messages)).file.size_bytes)


def fail(vms: vm_pb2_grpc.VmServiceStub, name: str, reference: str) -> None:
    try:
        vms.GetVm(vm_pb2.GetVmRequest(vm=reference))
    except grpc.RpcError as raised:
        error: Any = raised
        info = error_info(error)
        same = info.metadata["op_id"] == dict(error.initial_metadata())["ingle-op-id"]
        tell(name, error.code().name, info.domain, info.reason, str(same).lower())


def cancel(guest: guest_pb2_grpc.GuestServiceStub) -> None:
    requests = Requests()
    requests.say(guest_pb2.ExecRequest(start=guest_pb2.ExecStart(vm=VM, argv=["sleep", "98765"])))
    call = guest.Exec(iter(requests))
    for response in call:
        if response.HasField("started"):
            break
    call.cancel()
    tell("cancelled", call.code().name)
    requests.say(None)


with grpc.insecure_channel(f"unix:{SOCKET}") as channel:
    guest_service, vm_service = guest_pb2_grpc.GuestServiceStub(channel), vm_pb2_grpc.VmServiceStub(channel)
    execute(guest_service)
    upload(guest_service)
    found = vm_service.ListVms(vm_pb2.ListVmsRequest()).vms
    tell("list", str(VM in [vm.id for vm in found]).lower())
    fail(vm_service, "error", "no-such-vm")
    fail(vm_service, "long", "x" * 100_000)
    cancel(guest_service)

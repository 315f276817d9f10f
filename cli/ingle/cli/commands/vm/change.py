"""One change to many VMs, for the commands that take them by reference."""

import shlex
from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from ingle.cli.client import Client
from ingle.cli.many import change_each
from ingle.cli.output import tell
from ingle.v1 import vm_pb2

_R = TypeVar("_R", bound=Message)


def to_see(vms: Sequence[str]) -> str:
    """How to look at what has become of them."""
    return f"to see: ingle vm show {shlex.quote(vms[0])}" if len(vms) == 1 else "to see: ingle vm list"


def change_vms(
    client: Client,
    references: Sequence[str],
    request: Callable[[str], Message],
    response_type: type[_R],
    doing: str,
    *,
    json: bool,
    if_interrupted: str = "",
) -> None:
    """Change each, as change_each does; `if_interrupted` is told to who leaves meanwhile."""
    try:
        change_each(
            references,
            lambda reference: client.begin(vm_pb2.GetVmRequest(vm=reference), vm_pb2.GetVmResponse),
            lambda found: found.vm.id,
            lambda vm_id: client.begin(request(vm_id), response_type),
            doing,
            json=json,
        )
    except KeyboardInterrupt:
        if if_interrupted:
            tell(f"interrupted: {if_interrupted}")
        raise

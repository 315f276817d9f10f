"""What the shell offers after TAB. It never starts a server, never waits long, and never prints an error."""

import os
import posixpath
import sys
from collections.abc import Callable, Iterable
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TypeVar, cast

import typer

from ingle.cli.completion_scripts import VARIABLE
from ingle.cli.errors import CliError

if TYPE_CHECKING:
    from google.protobuf.message import Message

_R = TypeVar("_R", bound="Message")

VMM_SIGNALS = {"HUP": 1, "INT": 2, "KILL": 9, "TERM": 15}
"""Signals that a VMM may get, by their names of ingle.v1.Signal."""

_SILENCE_LIMIT_SECONDS = 1.0
_OFFERED_OPERATIONS = 50
_LONGEST_PASSWD = 1 << 16


def prepare() -> None:
    """If the shell asks for completions: make Typer know the shells. By itself it does so only for apps with its option
    --install-completion, which edits the user's shell configuration."""
    if VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # noqa: PLC0415

        completion_init()
        # Names of files are bytes.
        cast("TextIOWrapper", sys.stdout).reconfigure(errors="surrogateescape")


def vm_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the VMs there are, but of those that were given already."""
    return _not_given(ctx, _vm_names(incomplete))


def _vm_names(incomplete: str) -> list[str]:
    from ingle.v1.vm_pb2 import ListVmsRequest, ListVmsResponse  # noqa: PLC0415 - only TAB needs it

    return _matching(incomplete, ListVmsRequest(), ListVmsResponse, lambda answer: (vm.name for vm in answer.vms))


def snapshot_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the snapshots there are, but of those that were given already."""
    return _not_given(ctx, _snapshot_names(incomplete))


def vm_and_snapshot_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Both."""
    return sorted({*_vm_names(incomplete), *_snapshot_names(incomplete)})


def _snapshot_names(incomplete: str) -> list[str]:
    from ingle.v1.snapshot_pb2 import ListSnapshotsRequest, ListSnapshotsResponse  # noqa: PLC0415 - only TAB needs it

    return _matching(
        incomplete,
        ListSnapshotsRequest(),
        ListSnapshotsResponse,
        lambda answer: (snapshot.name for snapshot in answer.snapshots if snapshot.name),
    )


def names_of(noun: str) -> Callable[[typer.Context, str], list[str]]:
    """What completes the names of images, or of kernels, that are here, but of those that were given already."""

    def names(ctx: typer.Context, incomplete: str) -> list[str]:
        request, response = _messages(noun, "List")
        found = _matching(
            incomplete, request, response, lambda answer: (name for item in _items(answer, noun) for name in item.names)
        )
        return _not_given(ctx, found)

    return names


def pullable(noun: str) -> Callable[[str], list[str]]:
    """What completes the names of images, or of kernels, that can be pulled."""

    def names(incomplete: str) -> list[str]:
        request, response = _messages(noun, "ListCatalog")
        return _matching(incomplete, request, response, lambda answer: (item.name for item in _items(answer, noun)))

    return names


image_names = names_of("image")
kernel_names = names_of("kernel")


def operation_ids(incomplete: str) -> list[str]:
    """Ids of the latest operations."""
    from ingle.v1.operation_pb2 import ListOperationsRequest, ListOperationsResponse  # noqa: PLC0415

    request = ListOperationsRequest(page_size=_OFFERED_OPERATIONS)
    return _matching(incomplete, request, ListOperationsResponse, lambda answer: (op.id for op in answer.operations))


def signal_names(incomplete: str) -> list[str]:
    """Signals that a VMM may get."""
    return [name for name in VMM_SIGNALS if name.startswith(incomplete)]


def guest_ports(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ports that somebody listens on in the VM that was named before."""
    from ingle.v1.guest_pb2 import ListPortsRequest, ListPortsResponse  # noqa: PLC0415
    from ingle.v1.protocol_pb2 import PROTOCOL_TCP  # noqa: PLC0415

    request = ListPortsRequest(vm=ctx.params.get("vm") or "")
    return _matching(
        incomplete,
        request,
        ListPortsResponse,
        lambda answer: {str(port.port) for port in answer.ports if port.protocol == PROTOCOL_TCP},
    )


def guest_users(ctx: typer.Context, incomplete: str) -> list[str]:
    """Users of the VM that was named before; everywhere there is root."""
    from ingle.v1.guest_pb2 import ReadFileRequest, ReadFileResponse  # noqa: PLC0415

    request = ReadFileRequest(vm=ctx.params.get("vm") or "", path="/etc/passwd", max_bytes=_LONGEST_PASSWD)
    found = _matching(
        incomplete,
        request,
        ReadFileResponse,
        lambda answer: (line.partition(":")[0] for line in answer.data.decode(errors="replace").splitlines()),
    )
    return found or [name for name in ("root",) if name.startswith(incomplete)]


def session_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of the sessions of the VM that was named before."""
    from ingle.v1.guest_pb2 import ListSessionsRequest, ListSessionsResponse  # noqa: PLC0415

    request = ListSessionsRequest(vm=ctx.params.get("vm") or "")
    return _matching(
        incomplete, request, ListSessionsResponse, lambda answer: (session.id for session in answer.sessions)
    )


def guest_paths(ctx: typer.Context, incomplete: str) -> list[str]:
    """Paths in the VM that was named before."""
    return _paths(ctx.params.get("vm") or "", incomplete)


def places(incomplete: str) -> list[str]:
    """VM:PATH. With nothing to offer the shell completes paths of this machine."""
    vm, colon, path = incomplete.partition(":")
    if not colon:
        return [f"{name}:" for name in _vm_names(incomplete)] if incomplete else []
    return [f"{vm}:{found}" for found in _paths(vm, path)]


def _paths(vm: str, incomplete: str) -> list[str]:
    from ingle.cli.guest_files import name_of, place  # noqa: PLC0415
    from ingle.v1.guest_pb2 import FILE_TYPE_DIRECTORY, ListDirectoryRequest, ListDirectoryResponse  # noqa: PLC0415

    directory, last = posixpath.split(incomplete)

    def named(answer: ListDirectoryResponse) -> Iterable[str]:
        for entry in answer.entries:
            name = name_of(entry)
            hidden = name.startswith(".") and not last.startswith(".")
            if not hidden:
                path = posixpath.join(directory, name)
                yield f"{path}/" if entry.type == FILE_TYPE_DIRECTORY else path

    return _matching(incomplete, ListDirectoryRequest(vm=vm, **place(directory or ".")), ListDirectoryResponse, named)


def _not_given(ctx: typer.Context, names: list[str]) -> list[str]:
    """Where a command takes several things, each once."""
    given = {value for values in ctx.params.values() if isinstance(values, (list, tuple)) for value in values}
    return [name for name in names if name not in given]


def _messages(noun: str, verb: str) -> "tuple[Message, type[Message]]":
    from importlib import import_module  # noqa: PLC0415 - only TAB needs it

    contract, method = import_module(f"ingle.v1.{noun}_pb2"), f"{verb}{noun.capitalize()}s"
    return getattr(contract, f"{method}Request")(), getattr(contract, f"{method}Response")


def _items(answer: "Message", noun: str) -> Iterable[Any]:
    items: Iterable[Any] = getattr(answer, f"{noun}s")
    return items


def _can_be_offered(name: str) -> bool:
    """Not what a terminal would obey. Bytes that are no UTF-8 are fine: shells take them."""
    return all(char.isprintable() or "\udc80" <= char <= "\udcff" for char in name)


def _matching(
    incomplete: str, request: "Message", response_type: type[_R], names: Callable[[_R], Iterable[str]]
) -> list[str]:
    from ingle.cli.client import connect_if_running  # noqa: PLC0415

    try:
        client = connect_if_running(_SILENCE_LIMIT_SECONDS)
        if client is None:
            return []
        with client:
            found = names(client.call(request, response_type))
            return sorted(name for name in found if name.startswith(incomplete) and _can_be_offered(name))
    except CliError:
        return []  # somebody is typing: an error would land in the middle of their line

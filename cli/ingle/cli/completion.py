"""What the shell offers after TAB. It never starts a server, never waits long, and never prints an error."""

import os
import posixpath
import sys
from collections.abc import Callable, Iterable
from io import TextIOWrapper
from typing import TYPE_CHECKING, TypeVar, cast

import typer

from ingle.cli.errors import CliError

if TYPE_CHECKING:
    from google.protobuf.message import Message

_R = TypeVar("_R", bound="Message")

_VARIABLE = "_INGLE_COMPLETE"  # set by the script for the shell; the name is Typer's choice
_SILENCE_LIMIT_SECONDS = 1.0
_OFFERED_OPERATIONS = 50
_LONGEST_PASSWD = 1 << 16

# Names of images have colons, at which bash would otherwise begin a new word.
_BEFORE_BASH = "COMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n"

# A name with a * in it is a name. After a directory, or the VM of a path, more is to come: no space. What a shell would
# take apart is quoted, but where an open quote does that already, and bytes that are no text, which would become a $''.
_AFTER_BASH = """
_ingle() {
    local - i word
    set -f
    _ingle_completion "$@"
    [[ ${COMPREPLY[0]-} != *[/:] ]] || compopt -o nospace 2>/dev/null
    [[ ${COMP_WORDS[COMP_CWORD]-} != [\\"\\']* ]] || return 0
    for i in "${!COMPREPLY[@]}"; do
        printf -v word %q "${COMPREPLY[$i]}"
        [[ $word == [$]"'"* ]] || COMPREPLY[$i]=$word
    done
}
complete -o default -F _ingle ingle
"""


def prepare() -> None:
    """If the shell asks for completions: make Typer know the shells. By itself it does so only for apps with its option
    --install-completion, which edits the user's shell configuration."""
    if _VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # noqa: PLC0415

        completion_init()
        # Names of files are bytes.
        cast("TextIOWrapper", sys.stdout).reconfigure(errors="surrogateescape")


def shell_script(shell: str) -> str:
    """What the shell (bash, zsh or fish) has to source."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # noqa: PLC0415

    script: str = get_completion_script(prog_name="ingle", complete_var=_VARIABLE, shell=shell)
    return f"{_BEFORE_BASH}{script}{_AFTER_BASH}" if shell == "bash" else script


def vm_names(incomplete: str) -> list[str]:
    """Names of the VMs there are."""
    from ingle.v1.vm_pb2 import ListVmsRequest, ListVmsResponse  # noqa: PLC0415 - only TAB needs it

    return _matching(incomplete, ListVmsRequest(), ListVmsResponse, lambda answer: (vm.name for vm in answer.vms))


def image_names(incomplete: str) -> list[str]:
    """Names of the images that are here."""
    from ingle.v1.image_pb2 import ListImagesRequest, ListImagesResponse  # noqa: PLC0415

    return _matching(
        incomplete,
        ListImagesRequest(),
        ListImagesResponse,
        lambda answer: (name for image in answer.images for name in image.names),
    )


def kernel_names(incomplete: str) -> list[str]:
    """Names of the kernels that are here."""
    from ingle.v1.kernel_pb2 import ListKernelsRequest, ListKernelsResponse  # noqa: PLC0415

    return _matching(
        incomplete,
        ListKernelsRequest(),
        ListKernelsResponse,
        lambda answer: (name for kernel in answer.kernels for name in kernel.names),
    )


def image_catalog(incomplete: str) -> list[str]:
    """Names of the images that can be pulled."""
    from ingle.v1.image_pb2 import ListCatalogImagesRequest, ListCatalogImagesResponse  # noqa: PLC0415

    return _matching(
        incomplete,
        ListCatalogImagesRequest(),
        ListCatalogImagesResponse,
        lambda answer: (image.name for image in answer.images),
    )


def kernel_catalog(incomplete: str) -> list[str]:
    """Names of the kernels that can be pulled."""
    from ingle.v1.kernel_pb2 import ListCatalogKernelsRequest, ListCatalogKernelsResponse  # noqa: PLC0415

    return _matching(
        incomplete,
        ListCatalogKernelsRequest(),
        ListCatalogKernelsResponse,
        lambda answer: (kernel.name for kernel in answer.kernels),
    )


def operation_ids(incomplete: str) -> list[str]:
    """Ids of the latest operations."""
    from ingle.v1.operation_pb2 import ListOperationsRequest, ListOperationsResponse  # noqa: PLC0415

    request = ListOperationsRequest(limit=_OFFERED_OPERATIONS)
    return _matching(incomplete, request, ListOperationsResponse, lambda answer: (op.id for op in answer.operations))


def signal_names(incomplete: str) -> list[str]:
    """Signals that a VMM may get."""
    from ingle.v1.vm_pb2 import VmSignal  # noqa: PLC0415

    names = [name.removeprefix("VM_SIGNAL_") for name, number in VmSignal.items() if number]
    return [name for name in sorted(names) if name.startswith(incomplete)]


def guest_ports(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ports that somebody listens on in the VM that was named before."""
    from ingle.v1.guest_pb2 import PORT_PROTOCOL_TCP, ListPortsRequest, ListPortsResponse  # noqa: PLC0415

    request = ListPortsRequest(vm=ctx.params.get("vm") or "")
    return _matching(
        incomplete,
        request,
        ListPortsResponse,
        lambda answer: {str(port.port) for port in answer.ports if port.protocol == PORT_PROTOCOL_TCP},
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
        return [f"{name}:" for name in vm_names(incomplete)] if incomplete else []
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

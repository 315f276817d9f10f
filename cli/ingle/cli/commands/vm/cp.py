"""`ingle vm cp`: files and directories between this machine and a VM."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple

import typer

from ingle.cli.client import Client, connect
from ingle.cli.errors import CliError, failed
from ingle.cli.lazy import examples, new_app
from ingle.cli.progress import Stages
from ingle.cli.quantities import format_size
from ingle.cli.uploads import Upload
from ingle.v1 import guest_pb2

app = new_app()

_CHUNK = 256 * 1024


class _Remote(NamedTuple):
    """VM:PATH."""

    vm: str
    path: str


class _Progress:
    """Tells a person how much has been copied."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._entries = 0
        self._bytes = 0

    def told(self, name: str, size: int) -> None:
        """One more entry."""
        self._entries += 1
        self._bytes += size
        self._stages.under_way(f"Copying: {self._entries} entries, {format_size(self._bytes)}  {name}")


Place = Annotated[str, typer.Argument(help="VM:PATH, a path on this machine, or - for stdin or stdout.")]


@app.command(
    epilog=examples(
        "ingle vm cp site web:/srv               # makes /srv/site",
        "ingle vm cp web:/var/log/syslog .",
        "ingle vm cp -a web:/etc backup          # with owners",
        "pg_dump db | ingle vm cp - web:/srv/db.sql",
        "ingle vm cp web:/srv - | tar t          # a directory to stdout is a tar archive",
    )
)
def cp(
    source: Place,
    destination: Place,
    archive: Annotated[
        bool, typer.Option("--archive", "-a", help="Keep owners (by number), setuid and setgid bits.")
    ] = False,
    user: Annotated[str, typer.Option("--user", "-u", help="Whose rights count in the guest; root unless given.")] = "",
) -> None:
    """Copy a file or directory to or from a VM.

    Into a directory that is there; otherwise the destination is the new name. Modes, times and links are kept. A path
    on this machine that holds a colon begins with / or ./ ."""
    here_to_there, there_to_here = _remote(destination), _remote(source)
    if (here_to_there is None) == (there_to_here is None):
        raise typer.BadParameter("one of the two must be VM:PATH, and the other on this machine")
    with connect() as client, Stages(lines=False) as stages:
        progress = _Progress(stages)
        if here_to_there is not None:
            _copy_in(client, source, here_to_there, user, progress, archive=archive)
        elif there_to_here is not None:
            _copy_out(client, there_to_here, destination, user, progress, archive=archive)


def _remote(place: str) -> _Remote | None:
    vm, colon, path = place.partition(":")
    if not colon or not vm or vm.startswith((".", "/")) or "/" in vm:
        return None
    return _Remote(vm, path or ".")


def _copy_in(client: Client, source: str, target: _Remote, user: str, progress: _Progress, *, archive: bool) -> None:
    if source == "-":
        start = guest_pb2.WriteFileStart(vm=target.vm, path=target.path, user=user)
        call = client.begin(guest_pb2.WriteFileRequest(start=start), guest_pb2.WriteFileResponse, last=False)
        upload = Upload(client, call, guest_pb2.WriteFileRequest)
        while data := os.read(sys.stdin.fileno(), _CHUNK):
            upload.write(data)
        upload.finish()
        return
    from ingle.cli.archive import pack  # noqa: PLC0415 - tarfile is slow to load

    local = Path(source)
    if not local.exists() and not local.is_symlink():
        raise failed("INVALID_ARGUMENT", f"{source}: no such file or directory here")
    if _is_directory(client, target, user):
        directory, name = target.path, local.resolve().name if local.name in {"", ".."} else local.name
    else:
        path = PurePosixPath(target.path)
        directory, name = str(path.parent), path.name
    tar = guest_pb2.CopyInStart(vm=target.vm, path=directory, preserve_owners=archive, user=user)
    copy = client.begin(guest_pb2.CopyInRequest(start=tar), guest_pb2.CopyInResponse, last=False)
    sink = Upload(client, copy, guest_pb2.CopyInRequest)
    try:
        pack(local, name, sink, progress.told)
    except BaseException:
        sink.cancel()
        raise
    sink.finish()


def _copy_out(
    client: Client, source: _Remote, destination: str, user: str, progress: _Progress, *, archive: bool
) -> None:
    if destination == "-":
        if not _is_directory(client, source, user):
            _to_stdout(_content(client, source, user))
        else:
            _to_stdout(_archive(client, source, user))
        return
    from ingle.cli.archive import unpack  # noqa: PLC0415 - tarfile is slow to load

    local = Path(destination)
    if local.is_dir():
        directory, name = local, _last_name(source)
    else:
        directory, name = local.parent, local.name
    if not directory.is_dir():
        raise failed("INVALID_ARGUMENT", f"{directory}: no such directory here")
    unpack(_archive(client, source, user), directory, name, progress.told, preserve_owners=archive)


def _is_directory(client: Client, place: _Remote, user: str) -> bool:
    request = guest_pb2.StatFileRequest(vm=place.vm, path=place.path, follow=True, user=user)
    try:
        found = client.call(request, guest_pb2.StatFileResponse).file
    except CliError as error:
        if error.failures[0].reason == "FILE_NOT_FOUND":
            return False
        raise
    return found.type == guest_pb2.FILE_TYPE_DIRECTORY


def _last_name(source: _Remote) -> str:
    name = PurePosixPath(source.path).name
    return name if name and name != ".." else source.vm


def _content(client: Client, source: _Remote, user: str) -> Iterator[bytes]:
    request = guest_pb2.ReadFileRequest(vm=source.vm, path=source.path, user=user)
    ended = False
    for response in client.begin(request, guest_pb2.ReadFileResponse):
        ended = response.HasField("end")
        yield response.data
    _require_end(ended)


def _archive(client: Client, source: _Remote, user: str) -> Iterator[bytes]:
    request = guest_pb2.CopyOutRequest(vm=source.vm, path=source.path, user=user)
    ended = False
    for response in client.begin(request, guest_pb2.CopyOutResponse):
        ended = response.HasField("end")
        yield response.data
    _require_end(ended)


def _require_end(ended: bool) -> None:
    if not ended:
        raise failed("GUEST_PROTOCOL", "the call ended without saying that all was sent")


def _to_stdout(pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()

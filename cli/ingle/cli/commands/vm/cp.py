"""`ingle vm cp`: files and directories between this machine and a VM."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple

import typer

from ingle.cli import completion
from ingle.cli.client import Client, connect
from ingle.cli.errors import CliError, failed
from ingle.cli.guest_files import place, to_bytes
from ingle.cli.lazy import examples, new_app
from ingle.cli.output import is_terminal, tell
from ingle.cli.owners import is_of_a_user
from ingle.cli.printable import one_line
from ingle.cli.quantities import format_size
from ingle.cli.stages import Stages
from ingle.cli.uploads import Upload
from ingle.v1 import guest_pb2

app = new_app()

_MOST_TOLD = 100
_STDIO = "-"


class _Remote(NamedTuple):
    """VM:PATH; of an admin also USER/NAME:PATH."""

    vm: str
    path: str


class _Options(NamedTuple):
    """What holds for the whole copy."""

    archive: bool
    user: str


class _Progress:
    """Tells a person how much has been copied."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self.entries = 0
        self._bytes = 0

    def told(self, name: str, size: int) -> None:
        """One more entry."""
        self.entries += 1
        self._bytes += size
        self._stages.under_way(f"Copying: {self.entries} entries, {format_size(self._bytes)}  {name}")


_PLACE = "VM:PATH, a path on this machine, or - for a tar archive."
Source = Annotated[str, typer.Argument(metavar="SOURCE", help=_PLACE, autocompletion=completion.places)]
Destination = Annotated[str, typer.Argument(metavar="DESTINATION", help=_PLACE, autocompletion=completion.places)]


@app.command(
    epilog=examples(
        "ingle vm cp site web:/srv               # makes /srv/site",
        "ingle vm cp site/. web:/srv             # puts what is in site into /srv",
        "ingle vm cp web:/var/log/syslog .",
        "ingle vm cp -a web:/etc backup          # with owners and attributes",
        "tar c src | ingle vm cp - web:/srv      # unpacks in /srv",
        "ingle vm cp a:/srv - | ingle vm cp - b:/",
    )
)
def cp(
    source: Source,
    destination: Destination,
    archive: Annotated[
        bool,
        typer.Option("--archive", "-a", help="Keep owners (by number), setuid and setgid bits, extended attributes."),
    ] = False,
    user: Annotated[str, typer.Option("--user", "-u", help="Whose rights count in the guest; root unless given.")] = "",
) -> None:
    """Copy a file or directory to or from a VM.

    Into a directory that is there, otherwise under the new name. SOURCE/. is what is in a directory. Modes, times,
    links and holes are kept; files are replaced, directories kept as they are. A path on this machine that holds a
    colon begins with / or ./ . Admins say USER/NAME:PATH of another's VM."""
    here_to_there, there_to_here = _remote(destination), _remote(source)
    if here_to_there is not None and there_to_here is not None:
        raise typer.BadParameter(_pipelines(there_to_here, here_to_there))
    options = _Options(archive, user)
    with connect() as client, Stages(lines=False) as stages:
        progress = _Progress(stages)
        if here_to_there is not None and source == _STDIO:
            _unpack_stdin(client, here_to_there, options)
        elif here_to_there is not None:
            _copy_in(client, source, here_to_there, options, progress)
        elif there_to_here is not None and destination == _STDIO:
            _pack_to_stdout(client, there_to_here, options)
        elif there_to_here is not None:
            _copy_out(client, there_to_here, destination, options, progress)
        else:
            raise typer.BadParameter("one of the two must be VM:PATH, and the other on this machine")


def _remote(argument: str) -> _Remote | None:
    vm, colon, path = argument.partition(":")
    if not colon or not vm or vm.startswith((".", "/")):
        return None
    if "/" in vm and (not is_of_a_user(vm) or os.path.lexists(argument)):
        return None
    return _Remote(vm, path or ".")


def _pipelines(source: _Remote, target: _Remote) -> str:
    from shlex import join, quote  # noqa: PLC0415 - only this message needs them

    there, here = (quote(f"{remote.vm}:{remote.path}") for remote in (source, target))
    content, file = (join([remote.vm, remote.path]) for remote in (source, target))
    return (
        "between two VMs copy by way of a pipe, into a directory that is there: "
        f"ingle vm cp {there} - | ingle vm cp - {here}; "
        f"the content of a file: ingle vm file cat {content} | ingle vm file write {file}"
    )


def _unpack_stdin(client: Client, target: _Remote, options: _Options) -> None:
    found = _stat(client, target, options, follow=True)
    if found is None or found.type != guest_pb2.FILE_TYPE_DIRECTORY:
        raise failed(
            "NOT_A_DIRECTORY",
            f"{target.path}: an archive from stdin is unpacked in a directory, and this is none",
            f"ingle vm file mkdir {target.vm} {target.path}; for a file: ingle vm file write {target.vm} {target.path}",
        )
    upload = _begin_copy_in(client, target.vm, target.path, "", options)
    upload.write_stdin()
    _tell_left_out([], upload.finish().attributes_left_out)


def _pack_to_stdout(client: Client, source: _Remote, options: _Options) -> None:
    if is_terminal(sys.stdout):
        raise failed(
            "INVALID_ARGUMENT",
            "a tar archive is not for a terminal",
            f"ingle vm cp {source.vm}:{source.path} - >FILE; a file is shown by: ingle vm file cat",
        )
    archive = _Archive(client, source, options, contents=_means_contents(source.path))
    for piece in archive:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    _tell_left_out([], archive.end.attributes_left_out)


def _copy_in(client: Client, source: str, target: _Remote, options: _Options, progress: _Progress) -> None:
    from ingle.cli.packing import pack  # noqa: PLC0415 - tarfile is slow to load

    contents = _means_contents(source)
    local = Path(source).resolve() if contents or source.endswith("/") else Path(source)
    if not local.exists() and not local.is_symlink():
        raise failed("INVALID_ARGUMENT", f"{source}: no such file or directory here")
    is_directory = local.is_dir() and not local.is_symlink()
    if not is_directory and (contents or source.endswith("/")):
        raise failed("INVALID_ARGUMENT", f"{source}: not a directory")
    found = _stat(client, target, options, follow=True)
    if found is not None and found.type == guest_pb2.FILE_TYPE_DIRECTORY:
        name = "." if contents else Path(os.path.abspath(source)).name or "."
        upload = _begin_copy_in(client, target.vm, target.path, "", options)
    else:
        remedy = f"ingle vm file mkdir -p {target.vm} {target.path}"
        _require_place(target.path, is_directory, found is not None, remedy)
        directory, name = str(PurePosixPath(target.path).parent), PurePosixPath(target.path).name
        upload = _begin_copy_in(client, target.vm, directory, name, options)
    try:
        left_out = pack(local, name, upload, progress.told)
    except BaseException:
        upload.cancel()
        raise
    end = upload.finish()
    _tell_left_out(left_out.files, left_out.attributes + end.attributes_left_out)


def _copy_out(client: Client, source: _Remote, destination: str, options: _Options, progress: _Progress) -> None:
    from ingle.cli.unpacking import unpack  # noqa: PLC0415 - tarfile is slow to load

    contents = _means_contents(source.path)
    through = contents or source.path.endswith("/")
    found = _stat(client, source, options, follow=through)
    if found is None:
        raise failed(
            "FILE_NOT_FOUND",
            f"{source.path}: no such file or directory in {source.vm}",
            f"ingle vm file ls {source.vm} {PurePosixPath(source.path).parent}",
        )
    is_directory = found.type == guest_pb2.FILE_TYPE_DIRECTORY
    if through and not is_directory:
        raise failed("NOT_A_DIRECTORY", f"{source.path}: not a directory")
    local = Path(destination)
    if local.is_dir():
        name = PurePosixPath(source.path).name
        of_vm = source.vm.rpartition("/")[2]
        directory, name = local, "" if contents else name if name not in {"", ".."} else of_vm
    else:
        _require_place(destination, is_directory, os.path.lexists(local), f"mkdir -p {destination}")
        local = _followed(local)
        directory, name = local.parent, local.name
    if not directory.is_dir():
        raise failed("INVALID_ARGUMENT", f"{directory}: no such directory here", f"mkdir -p {directory}")
    archive = _Archive(client, source, options, contents=through)
    left_out = unpack(iter(archive), directory, name, progress.told, preserve=options.archive)
    if progress.entries != archive.end.entries:
        raise failed("GUEST_PROTOCOL", f"{archive.end.entries} entries were sent, {progress.entries} arrived")
    _tell_left_out(left_out.files, left_out.attributes + archive.end.attributes_left_out)


def _followed(path: Path) -> Path:
    """The file that a path stands for: a symbolic link's target, whether that is there or not."""
    try:
        path.stat()  # asks the kernel, which may forbid to follow a stranger's link; see protected_symlinks in proc(5)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise failed("SYMLINK_REFUSED", f"{path}: {error.strerror}") from error
    return path.resolve() if path.is_symlink() else path


def _means_contents(path: str) -> bool:
    return path == "." or path.endswith("/.")


def _require_place(path: str, is_directory: bool, is_there: bool, remedy: str) -> None:
    """Refuse a directory in the place of a file, and a file in a directory that isn't there."""
    if is_directory and is_there:
        raise failed("NOT_A_DIRECTORY", f"{path}: a file is there, and a directory does not replace it")
    if not is_directory and (path.endswith("/") or _means_contents(path)):
        raise failed("NOT_A_DIRECTORY", f"{path}: no such directory", remedy)


def _stat(client: Client, target: _Remote, options: _Options, *, follow: bool) -> guest_pb2.FileInfo | None:
    request = guest_pb2.StatFileRequest(vm=target.vm, **place(target.path), follow=follow, user=options.user)
    try:
        return client.call(request, guest_pb2.StatFileResponse).file
    except CliError as error:
        if error.failures[0].reason == "FILE_NOT_FOUND":
            return None
        raise


def _begin_copy_in(
    client: Client, vm: str, directory: str, name: str, options: _Options
) -> "Upload[guest_pb2.CopyInResponse]":
    """`name`: of what is made in the directory; a symbolic link there is followed. Empty: as the archive has it."""
    start = guest_pb2.CopyInStart(
        vm=vm, **place(directory), name=to_bytes(name), preserve_owners=options.archive, user=options.user
    )
    call = client.begin(guest_pb2.CopyInRequest(start=start), guest_pb2.CopyInResponse, last=False)
    return Upload(client, call, guest_pb2.CopyInRequest)


class _Archive:
    """The pieces of a guest's archive; `end` is what it held, once all came."""

    def __init__(self, client: Client, source: _Remote, options: _Options, *, contents: bool) -> None:
        request = guest_pb2.CopyOutRequest(vm=source.vm, **place(source.path), user=options.user, contents=contents)
        self._call = client.begin(request, guest_pb2.CopyOutResponse)
        self.end = guest_pb2.CopyOutEnd()

    def __iter__(self) -> Iterator[bytes]:
        ended = False
        for response in self._call:
            if response.HasField("end"):
                ended, self.end = True, response.end
            else:
                yield response.data
        if not ended:
            raise failed("GUEST_PROTOCOL", "the call ended without saying that all was sent")


def _tell_left_out(files: list[str], attributes: int) -> None:
    for name in files[:_MOST_TOLD]:
        tell(one_line(f"ingle: left out: {name} (sockets are; devices without --archive)"))
    if len(files) > _MOST_TOLD:
        tell(f"ingle: left out: {len(files) - _MOST_TOLD} more")
    if attributes:
        tell(f"ingle: left out: {attributes} extended attributes that have no place there")

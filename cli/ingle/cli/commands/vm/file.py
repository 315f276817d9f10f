"""`ingle vm file cat|write|ls|stat|rm|mkdir|mv`: a guest's files, one at a time."""

import re
import sys
from base64 import b64encode
from datetime import UTC
from typing import Annotated

import typer

from ingle.cli import completion
from ingle.cli.client import connect
from ingle.cli.errors import failed
from ingle.cli.guest_files import new_place, place
from ingle.cli.jsonable import Json, enum_name, to_json
from ingle.cli.lazy import Group, examples, new_app
from ingle.cli.listing import Column, Filter, Listing, ListOptions, enum_numbers
from ingle.cli.options import AsJson, Size, VmReference, as_option
from ingle.cli.output import fields, print_json, say, tell
from ingle.cli.paging import pages
from ingle.cli.printable import one_line
from ingle.cli.quantities import format_size
from ingle.cli.spread import spread
from ingle.cli.uploads import Upload
from ingle.v1 import guest_pb2

_LARGEST_MODE = 0o7777
_LARGEST_SIZE = 2**63 - 1
_TYPES = guest_pb2.FileType.DESCRIPTOR
_LETTERS = {"regular": "-", "directory": "d", "symlink": "l", "fifo": "p", "socket": "s", "character_device": "c"}


class _File(Group):
    aliases = {**Group.aliases, "list": "ls", "ls": "ls", "rm": "rm"}  # noqa: RUF012 - a ClassVar of the base


app = new_app(
    "Files in a running VM.",
    first=(
        "ingle vm file ls web /etc",
        "ingle vm file cat web /etc/hostname",
        "ingle vm file write web /etc/motd <motd",
    ),
    cls=_File,
)


def _parse_mode(text: str) -> int:
    if not re.fullmatch("[0-7]{1,5}", text) or (mode := int(text, 8)) > _LARGEST_MODE:
        raise ValueError(f"{text!r} is no octal mode such as 644; the largest is 7777")
    return mode


Path = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="In the guest; a relative one is below the user's home.",
        autocompletion=completion.guest_paths,
    ),
]
User = Annotated[str, typer.Option("--user", "-u", help="Whose rights count in the guest; root unless given.")]
Mode = Annotated[
    int | None,
    typer.Option("--mode", "-m", metavar="OCTAL", parser=as_option(_parse_mode), help="Permissions, e.g. 644."),
]
Owner = Annotated[str, typer.Option("--owner", metavar="USER[:GROUP]", help="Names or numbers in the guest.")]
Parents = Annotated[bool, typer.Option("--parents", "-p", help="Make missing directories.")]


@app.callback()
def file() -> None:
    """Makes the app a group."""


@app.command(
    epilog=examples("ingle vm file cat web /etc/hostname", "ingle vm file cat --lines 100 --offset 4096 web /var/log/x")
)
def cat(
    vm: VmReference,
    path: Path,
    offset: Annotated[int, typer.Option("--offset", min=0, max=_LARGEST_SIZE, help="Byte to begin at.")] = 0,
    max_bytes: Annotated[
        int | None, typer.Option("--bytes", metavar="SIZE", parser=Size, help="At most so much, e.g. 64K.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", min=0, max=_LARGEST_SIZE, help="At most so many lines; 0: all.")] = 0,
    user: User = "",
    json: AsJson = False,
) -> None:
    """Print a file, byte for byte. Says so on stderr when a limit cut it off.

    With --json that and the file's facts are part of one object; its `content` is text, or base64 for what is no
    UTF-8, as `encoding` says."""
    request = guest_pb2.ReadFileRequest(
        vm=vm, **place(path), offset=offset, max_bytes=max_bytes or 0, max_lines=lines, user=user
    )
    kept: list[bytes] = []
    take = kept.append if json else sys.stdout.buffer.write
    with connect() as client:
        end = None
        for response in client.begin(request, guest_pb2.ReadFileResponse):
            take(response.data)
            if response.HasField("end"):
                end = response.end
        sys.stdout.buffer.flush()
    if end is None:
        raise failed("GUEST_PROTOCOL", "the call ended without the end of the file")
    if json:
        print_json({**to_json(end), "file": _facts(end.file), **_text_or_base64(b"".join(kept))})
    elif end.truncated:
        tell(f"ingle: there is more, from --offset {end.next_offset}")


@app.command(
    epilog=examples(
        "echo hello | ingle vm file write web /etc/motd",
        "ingle vm file write --mode 600 --owner www-data -p web /srv/app/key <key",
    )
)
def write(
    vm: VmReference,
    path: Path,
    mode: Mode = None,
    owner: Owner = "",
    parents: Parents = False,
    append: Annotated[bool, typer.Option("--append", "-a", help="Add to the end.")] = False,
    user: User = "",
    json: AsJson = False,
) -> None:
    """Write stdin to a file, which is replaced as a whole or not at all."""
    start = guest_pb2.WriteFileStart(
        vm=vm, **place(path), mode=mode, owner=owner, parents=parents, append=append, user=user
    )
    with connect() as client:
        call = client.begin(guest_pb2.WriteFileRequest(start=start), guest_pb2.WriteFileResponse, last=False)
        upload = Upload(client, call, guest_pb2.WriteFileRequest)
        upload.write_stdin()
        info = upload.finish().file
    if json:
        print_json(_facts(info))


def _facts(info: guest_pb2.FileInfo) -> dict[str, Json]:
    """The mode as chmod(1) takes it: JSON has no octal numbers."""
    return {**to_json(info), "mode": f"{info.mode:04o}"}


def _mode_text(info: guest_pb2.FileInfo) -> str:
    return f"{_LETTERS.get(enum_name(_TYPES, info.type), 'b')}{info.mode:04o}"


def _name(info: guest_pb2.FileInfo) -> str:
    name = f"{info.name} -> {info.link_target}" if info.link_target else info.name
    return one_line(name)


_FILES = Listing(
    message=guest_pb2.FileInfo,
    columns=(
        Column("MODE", _mode_text),
        Column("OWNER", lambda info: f"{info.uid}:{info.gid}"),
        Column("SIZE", lambda info: format_size(info.size_bytes)),
        Column("MODIFIED", lambda info: f"{info.modified_at.ToDatetime(UTC):%Y-%m-%d %H:%M}"),
        Column("NAME", _name),
    ),
    name=lambda info: info.name,
    filters={
        "name": Filter(lambda info: [info.name]),
        "type": Filter(lambda info: [enum_name(_TYPES, info.type)], among=enum_numbers(_TYPES)),
    },
    as_json=_facts,
)


@app.command(
    epilog=examples(
        "ingle vm file ls web /etc",
        "ingle vm file ls --filter type=directory -q web /srv",
        "ingle vm file ls --format '{{.mode}} {{.name}}' --filter 'name=*.conf' web /etc",
        "ingle vm file ls --json web /srv",
    )
)
@spread(ListOptions)
def ls(vm: VmReference, options: ListOptions, path: Path = ".", user: User = "") -> None:
    """List a directory, sorted by name.

    Filters: name, type. Alias: list."""
    chosen = _FILES.chosen(options)
    entries: list[guest_pb2.FileInfo] = []
    request = guest_pb2.ListDirectoryRequest(vm=vm, **place(path), user=user)
    with connect() as client:
        for page in pages(client, request, guest_pb2.ListDirectoryResponse):
            entries += page.entries
    chosen.show(entries)


@app.command(epilog=examples("ingle vm file stat web /etc/passwd", "ingle vm file stat --json --follow web /etc/mtab"))
def stat(
    vm: VmReference,
    path: Path,
    follow: Annotated[bool, typer.Option("--follow", "-L", help="What a symbolic link leads to.")] = False,
    user: User = "",
    json: AsJson = False,
) -> None:
    """Describe a file."""
    request = guest_pb2.StatFileRequest(vm=vm, **place(path), follow=follow, user=user)
    with connect() as client:
        info = client.call(request, guest_pb2.StatFileResponse).file
    if json:
        print_json(_facts(info))
        return
    say(
        fields(
            (
                ("name", _name(info)),
                ("type", enum_name(_TYPES, info.type)),
                ("mode", f"{info.mode:04o}"),
                ("owner", f"{info.uid}:{info.gid}"),
                ("size", format_size(info.size_bytes)),
                ("modified", f"{info.modified_at.ToDatetime(UTC):%Y-%m-%d %H:%M:%S} UTC"),
                ("links", str(info.links)),
            )
        )
    )


@app.command(epilog=examples("ingle vm file rm web /tmp/x", "ingle vm file rm -r web /srv/old"))
def rm(
    vm: VmReference,
    path: Path,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="A directory with all in it.")] = False,
    user: User = "",
) -> None:
    """Remove a file, an empty directory, or a symbolic link itself."""
    with connect() as client:
        request = guest_pb2.RemoveRequest(vm=vm, **place(path), recursive=recursive, user=user)
        client.call(request, guest_pb2.RemoveResponse)


@app.command(epilog=examples("ingle vm file mkdir -p web /srv/app/data"))
def mkdir(
    vm: VmReference,
    path: Path,
    mode: Mode = None,
    owner: Owner = "",
    parents: Parents = False,
    user: User = "",
    json: AsJson = False,
) -> None:
    """Make a directory."""
    request = guest_pb2.MakeDirectoryRequest(vm=vm, **place(path), mode=mode, owner=owner, parents=parents, user=user)
    with connect() as client:
        info = client.call(request, guest_pb2.MakeDirectoryResponse).file
    if json:
        print_json(_facts(info))


@app.command(epilog=examples("ingle vm file mv web /srv/new /srv/current", "ingle vm file mv --force web a b"))
def mv(
    vm: VmReference,
    path: Path,
    new_path: Annotated[str, typer.Argument(metavar="NEW_PATH", help="Within the same file system.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace what is at NEW_PATH.")] = False,
    user: User = "",
) -> None:
    """Rename a file or directory."""
    with connect() as client:
        request = guest_pb2.RenameRequest(vm=vm, **place(path), replace=force, user=user)
        request.MergeFrom(new_place(new_path))
        client.call(request, guest_pb2.RenameResponse)


def _text_or_base64(content: bytes) -> dict[str, Json]:
    try:
        return {"content": content.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"content": b64encode(content).decode(), "encoding": "base64"}

"""Files: agent messages and the domain. What a guest says is checked here before anybody believes it."""

from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest.messages import in_turns, nonsense, printable
from ingle.api_server.model.guest_files import FileInfo, FileType

_LONGEST_NAME = 255  # NAME_MAX; characters are bytes at least
_LONGEST_TARGET = 4096  # PATH_MAX
_LARGEST_MODE = 0o7777
_LONGEST_TOKEN = 3 * _LONGEST_NAME  # a name whose every byte is escaped


def file_info(message: agent_pb2.FileInfo) -> FileInfo:
    """A file as a guest tells of it. Raises GuestError(GUEST_PROTOCOL) for what no kernel has."""
    # Text that isn't what the bytes say would show one file and mean another.
    name = message.raw_name.decode(errors="replace") or message.name
    target = message.raw_link_target.decode(errors="replace") or message.link_target
    if not _is_name(name) or len(message.raw_name) > _LONGEST_NAME:
        raise nonsense(f"a file of the name {printable(name)!r}")
    if len(target) > _LONGEST_TARGET:
        raise nonsense(f"a link to {len(target)} characters; at most {_LONGEST_TARGET} are allowed")
    if message.mode > _LARGEST_MODE:
        raise nonsense(f"a file of mode {message.mode:#o}")
    try:
        kind = FileType(message.type)
    except ValueError as error:
        raise nonsense(f"a file of type {message.type}") from error
    return FileInfo(
        name=name,
        type=kind,
        mode=message.mode,
        uid=message.uid,
        gid=message.gid,
        size_bytes=message.size_bytes,
        modified_nanoseconds=message.modified_nanoseconds,
        link_target=target,
        links=message.links,
        raw_name=message.raw_name,
        raw_link_target=message.raw_link_target,
    )


async def file_infos(messages: Sequence[agent_pb2.FileInfo]) -> list[FileInfo]:
    """Many of them, thousands perhaps."""
    return await in_turns(file_info, messages)


def check_next(after: str, following: str) -> None:
    """Where a next page begins must be behind where this one did, so that paging ends. Raises
    GuestError(GUEST_PROTOCOL)."""
    if len(following) > _LONGEST_TOKEN or unquote_to_bytes(following) <= unquote_to_bytes(after):
        raise nonsense(f"a page behind {printable(after)!r} that goes on at {printable(following)!r}")


def _is_name(name: str) -> bool:
    """The last component of a path, which the root's is not: it is the one name with a slash."""
    if name == "/":
        return True
    return 0 < len(name) <= _LONGEST_NAME and name not in (".", "..") and "/" not in name and "\0" not in name

"""Remedies with the names that the caller used. What a guest refuses is told where nobody knows how its VM is called,
or which request it was: there a remedy says {vm}, {path}, {directory} or {new_path}; and {find_or_make} where a file is
missing: who reads looks for it, who writes makes its directory."""

import posixpath
import re
import shlex
from collections.abc import Mapping

from google.protobuf.message import Message

from ingle.v1 import guest_pb2

_NAME = re.compile(r"\{(vm|path|directory|new_path|find_or_make)\}")


def with_names(remedy: str, request: object) -> str:
    """The remedy as it can be typed; nothing when `request`, the first message of a call, does not have the names."""
    names = _names(request) if isinstance(request, Message) else {}
    if any(name not in names for name in _NAME.findall(remedy)):
        return ""
    return _NAME.sub(lambda match: names[match[1]], remedy)


def _names(request: Message) -> dict[str, str]:
    message = request
    if "start" in request.DESCRIPTOR.fields_by_name:
        message = getattr(request, "start")  # noqa: B009 - not every message has it
    found = {}
    for name in ("vm", "path", "new_path"):
        if name in message.DESCRIPTOR.fields_by_name:
            raw = getattr(message, f"raw_{name}", b"").decode(errors="replace")
            found[name] = shlex.quote(getattr(message, name) or raw)
    if "path" in found:
        (path,) = shlex.split(found["path"])
        found["directory"] = shlex.quote(posixpath.dirname(path) or ".")
    if {"vm", "path"} <= set(found):
        found["find_or_make"] = _find_or_make(request, found)
    return found


def _find_or_make(request: Message, found: Mapping[str, str]) -> str:
    look = f"ingle vm file ls {found['vm']} {found['directory']}"
    wanted = found["path"] if isinstance(request, guest_pb2.CopyInRequest) else found["directory"]
    make = f"ingle vm file mkdir -p {found['vm']} {wanted}"
    if isinstance(request, guest_pb2.WriteFileRequest | guest_pb2.MakeDirectoryRequest | guest_pb2.CopyInRequest):
        return make
    if isinstance(request, guest_pb2.RenameRequest):
        new_directory = shlex.quote(posixpath.dirname("".join(shlex.split(found["new_path"]))) or ".")
        return f"{look}; ingle vm file mkdir -p {found['vm']} {new_directory}"
    return look

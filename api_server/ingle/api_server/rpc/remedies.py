"""Remedies with the names that the caller used. What a guest refuses is told where nobody knows how its VM is called,
or which request it was: there a remedy says {vm}, {path}, {directory} or {new_path}."""

import posixpath
import re
import shlex

from google.protobuf.message import Message

_NAME = re.compile(r"\{(vm|path|directory|new_path)\}")


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
        found["directory"] = shlex.quote(posixpath.dirname(message.path) or ".")  # type: ignore[attr-defined]
    return found

"""Files of a guest in requests and answers. Their names are bytes: what isn't UTF-8 has a field beside that of the
text, and is lone surrogates here, as in Python's own names of files (PEP 383)."""

from typing import TypedDict

from ingle.v1 import guest_pb2


class Place(TypedDict, total=False):
    """Fields of any request about a file."""

    path: str
    raw_path: bytes


def place(path: str) -> Place:
    """A path in the field that can hold it."""
    return {"path": path} if _is_text(path) else {"raw_path": to_bytes(path)}


def new_place(path: str) -> guest_pb2.RenameRequest:
    """What a file is to be called."""
    if _is_text(path):
        return guest_pb2.RenameRequest(new_path=path)
    return guest_pb2.RenameRequest(raw_new_path=to_bytes(path))


def to_bytes(name: str) -> bytes:
    """A name as it is."""
    return name.encode(errors="surrogateescape")


def name_of(info: guest_pb2.FileInfo) -> str:
    """What a file is really called."""
    return info.raw_name.decode(errors="surrogateescape") or info.name


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True

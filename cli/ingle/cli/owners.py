"""Users of this host, by the names that people have for them; the server knows uids."""

import os
import pwd


def user_name(uid: int) -> str:
    """What people call that user; the uid where nobody has a name for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def another(uid: int) -> str:
    """The name of another user; empty for this one, whose things need no telling whose they are."""
    return "" if uid == os.getuid() else user_name(uid)


def uid_of(user: str) -> int | None:
    """A user's by name or uid; None of one that is not there."""
    if user.isascii() and user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def with_uid(reference: str) -> str:
    """USER/NAME as the server takes it: UID/NAME. Anything else stays as it is."""
    user, slash, name = reference.partition("/")
    uid = uid_of(user) if slash and user else None
    return reference if uid is None else f"{uid}/{name}"


def is_of_a_user(reference: str) -> bool:
    """Whether it is USER/NAME, with a user that there is."""
    user, _, name = reference.partition("/")
    return bool(user and name) and "/" not in name and uid_of(user) is not None


def called(owner: int, name: str) -> str:
    """What this user has to type to mean what that owner calls so."""
    return name if owner == os.getuid() else f"{user_name(owner)}/{name}"

"""Extended attributes and ACLs of local files, as PAX records of a tar archive: SCHILY.xattr.NAME, like GNU tar's."""

import errno
import os
from collections.abc import Mapping

_PREFIX = "SCHILY.xattr."
_ROOM = 256 * 1024
_ANYBODYS = ("user.", "system.posix_acl_access", "system.posix_acl_default")
_ROOTS = ("security.capability", "trusted.")
_NOT_POSSIBLE = {errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.E2BIG, errno.ERANGE, errno.EINVAL}


def read_attributes(file: int) -> tuple[dict[str, str], int]:
    """An open file's attributes as PAX records, and how many there was no room for (256 KiB)."""
    try:
        names = os.listxattr(file)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}, 0
        raise
    records: dict[str, str] = {}
    room, left_out = _ROOM, 0
    for name in filter(_carried, names):
        value = os.getxattr(file, name)
        room -= len(name) + len(value)
        if room < 0:
            left_out += 1
        else:
            key = name.replace("%", "%25").replace("=", "%3D")  # '=' ends a PAX keyword
            records[_PREFIX + key] = value.decode(errors="surrogateescape")
    return records, left_out


def write_attributes(file: int, records: Mapping[str, str]) -> int:
    """Set the attributes among PAX records; answers how many the file system, or the kernel for us, will not take."""
    left_out = 0
    for key, value in records.items():
        name = key.removeprefix(_PREFIX).replace("%3D", "=").replace("%25", "%")
        if not key.startswith(_PREFIX):
            continue
        if not _carried(name):
            left_out += 1
            continue
        try:
            os.setxattr(file, name, value.encode(errors="surrogateescape"))
        except OSError as error:
            if error.errno not in _NOT_POSSIBLE:
                raise
            left_out += 1
    return left_out


def _carried(name: str) -> bool:
    return name.startswith(_ANYBODYS) or (os.geteuid() == 0 and name.startswith(_ROOTS))

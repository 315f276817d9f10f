"""Becomes another program that can make no file set-id, as RestrictSUIDSGID= of systemd.exec(5) has it for a service.

python3 restricted.py COMMAND [ARGUMENT...]"""

import ctypes
import os
import struct
import sys

# linux/filter.h, linux/seccomp.h, linux/prctl.h
_LOAD, _IF_EQUAL, _IF_ANY, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_NUMBER_AT, _ARGUMENTS_AT = 0, 16

_SET_ID, _CREATE = 0o6000, 0o100
_MODES = {"chmod": (90, 1), "fchmod": (91, 1), "fchmodat": (268, 2), "fchmodat2": (452, 2)}
_OPENINGS = {"open": (2, 1, 2), "openat": (257, 2, 3)}
_OPENAT2 = 437
"""Numbers of x86-64, and which argument is the mode; with an opening, the flags before it."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def _code() -> bytes:
    steps: list[tuple[int, int, int, int]] = []

    def argument(index: int, mask: int, skip: int) -> list[tuple[int, int, int, int]]:
        return [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index), (_IF_ANY, 0, skip, mask)]

    for number, mode in _MODES.values():
        steps += [(_LOAD, 0, 0, _NUMBER_AT), (_IF_EQUAL, 0, 3, number)]
        steps += [*argument(mode, _SET_ID, 1), (_RETURN, 0, 0, _EPERM)]
    for number, flags, mode in _OPENINGS.values():
        steps += [(_LOAD, 0, 0, _NUMBER_AT), (_IF_EQUAL, 0, 5, number)]
        steps += [*argument(flags, _CREATE, 3), *argument(mode, _SET_ID, 1), (_RETURN, 0, 0, _EPERM)]
    steps += [(_LOAD, 0, 0, _NUMBER_AT), (_IF_EQUAL, 0, 1, _OPENAT2), (_RETURN, 0, 0, _ENOSYS)]
    return b"".join(struct.pack("HBBI", *step) for step in [*steps, (_RETURN, 0, 0, _ALLOW)])


def main() -> None:
    """Raises OSError."""
    code = _code()
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    for request in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*request) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()

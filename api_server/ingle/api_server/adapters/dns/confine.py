"""A process that gives up what it doesn't need: before it reads a guest's first byte, and for ever.

It keeps the sockets that it is handed, can open others for IPv4 and IPv6, and nothing else: no file, no program, no
process, no thread, no socket of another family. So whoever takes it over has no state, no API and nobody's memory.
"""

import ctypes
import errno
import logging
import resource
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress

log = logging.getLogger(__name__)

_LIBRARY = "libseccomp.so.2"  # QEMU needs it too
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38  # linux/prctl.h

# seccomp.h
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EQUAL = 4

_DATA_BYTES = 512 << 20

# What an event loop with sockets comes to, and an interpreter that frees and allocates. The rest doesn't exist, as far
# as the process can tell: then the C library tries what it did before that was invented.
_NEEDED = """
accept accept4 bind close connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmsg select send
sendmmsg sendmsg sendto setsockopt shutdown socketpair
dup dup2 dup3 fcntl fcntl64 ioctl read readv write writev fstat fstat64 newfstatat lseek _llseek
epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait poll ppoll pselect6
brk futex get_robust_list madvise mmap mmap2 mprotect mremap munmap sched_yield set_robust_list sched_getaffinity
clock_getres clock_gettime clock_nanosleep gettimeofday nanosleep time
exit exit_group getegid geteuid getgid getpid getppid getrandom gettid getuid restart_syscall rseq
rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack
""".split()
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def end_with_parent() -> None:
    """Whatever becomes of the process that started this one."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def confine() -> None:
    """Give it up. What this host has no means for is logged: the rest holds."""
    for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, _DATA_BYTES)):
        with suppress(ValueError, OSError):  # less already, or a unit that has limits of its own
            resource.setrlimit(what, (most, most))
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    try:
        _filter_system_calls(ctypes.CDLL(_LIBRARY))
    except OSError as error:
        log.error("DNS runs without a filter of system calls: %s", error)


def _filter_system_calls(library: ctypes.CDLL) -> None:
    """By libseccomp, which knows the numbers on every processor. Raises OSError."""
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    library.seccomp_load.argtypes = library.seccomp_release.argtypes = [ctypes.c_void_p]
    context = library.seccomp_init(_ERRNO | errno.ENOSYS)
    if context is None:
        raise OSError(errno.ENOMEM, "no context of libseccomp")
    try:
        for name in _NEEDED:
            _allow(library, context, name)
        for family in _FAMILIES:
            _allow(library, context, "socket", [_Comparison(0, _EQUAL, family, 0)])
        _check(library.seccomp_load(context))
    finally:
        library.seccomp_release(context)


def _allow(library: ctypes.CDLL, context: int, name: str, comparisons: Sequence[_Comparison] = ()) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number == -1:  # one that this version doesn't know, or this processor doesn't have
        return
    array = (_Comparison * len(comparisons))(*comparisons)
    _check(library.seccomp_rule_add_array(context, _ALLOW, number, len(comparisons), array))


def _check(code: int) -> None:
    if code < 0:
        raise OSError(-code, f"libseccomp: error {-code}")

"""What the host says when it has no more of something: an OSError of any system call, told as an error of ours."""

import errno

from ingle.api_server.model.errors import HostProblem, Reason

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REMEDIES = {
    errno.EMFILE: "close connections to the server; `ulimit -Hn` is how many descriptors it can have",
    errno.ENFILE: "stop programs that have many files open; `cat /proc/sys/fs/file-nr` counts them",
    errno.ENOMEM: "stop a VM, or free memory otherwise: free -h",
    errno.ENOBUFS: "stop a VM, or free memory otherwise: free -h",
    errno.EAGAIN: "stop some processes; `ulimit -u` is how many this user can have",
}
_NO_THREAD = "can't start new thread"


def exhaustion(error: BaseException) -> HostProblem | None:
    """What `error` says about the host, if it is that which has too little."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and str(error) == _NO_THREAD):
        number = errno.ENOMEM if isinstance(error, MemoryError) else errno.EAGAIN
        return HostProblem(
            Reason.HOST_EXHAUSTED, f"the host has too little: {str(error) or 'memory'}", _REMEDIES[number]
        )
    if not isinstance(error, OSError) or error.errno is None:
        return None
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _FULL:
        return HostProblem(Reason.DISK_FULL, f"the host's disk is full: {error.strerror}{where}", "df -h")
    if error.errno in _REMEDIES:
        return HostProblem(Reason.HOST_EXHAUSTED, f"the host has too little: {error.strerror}", _REMEDIES[error.errno])
    return None


def no_descriptors() -> HostProblem:
    """This process may have no more files open."""
    problem = exhaustion(OSError(errno.EMFILE, "Too many open files"))
    assert problem is not None
    return problem

"""Network namespaces without names: they live as long as a descriptor, and none is left when tests are killed."""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute

_EVERYWHERE = 0  # linux/rtnetlink.h: RT_SCOPE_UNIVERSE
_PERMANENT = 0x80  # linux/neighbour.h: NUD_PERMANENT
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_SYS_SETRESUID = {"x86_64": 117, "aarch64": 147}[os.uname().machine]
_SYS_SETRESGID = {"x86_64": 119, "aarch64": 149}[os.uname().machine]

Result = TypeVar("Result")
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One network namespace, its loopback up."""

    def __init__(self) -> None:
        self.descriptor = _in_thread(_unshared)
        self.run("ip", "link", "set", "lo", "up")

    def close(self) -> None:
        os.close(self.descriptor)

    @property
    def enter(self) -> list[str]:
        """What comes before a command that is to run in here."""
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.descriptor}"]

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run([*self.enter, *command], capture_output=True, text=True, check=False, timeout=60)
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def do(self, what: Callable[[], Result], uid: int = 0) -> Result:
        """Call `what` by a thread that is in here, as `uid`. What it opens is from in here for ever."""

        def inside() -> Result:
            _checked(_libc.setns(self.descriptor, _CLONE_NEWNET))
            if uid:  # of this thread alone, which is why these are not the functions of libc
                _checked(_libc.syscall(_SYS_SETRESGID, uid, uid, uid))
                _checked(_libc.syscall(_SYS_SETRESUID, uid, uid, uid))
            return what()

        return _in_thread(inside)

    def sysctl(self, name: str, value: int) -> None:
        path = Path("/proc/sys/net", name)
        self.do(lambda: path.write_text(str(value)))

    def kernel(self, question: "Callable[[IPRoute], Result]") -> Result:
        """What the kernel really has, asked by a library that is not ours. Names of attributes are the kernel's,
        without their prefix: rtnetlink(7)."""

        def asked() -> Result:
            with IPRoute() as opened:
                return question(opened)

        return self.do(asked)

    def link(self, name: str) -> Any:
        """An interface as the kernel has it; IFLA_INFO_DATA is its `kind`'s."""
        return self.kernel(lambda opened: opened.get_links(ifname=name)[0])

    def indexes(self) -> dict[str, int]:
        """Every interface, by name."""
        return {link.get("ifname"): link["index"] for link in self.kernel(lambda opened: list(opened.get_links()))}

    def addresses(self, name: str) -> set[str]:
        """Those of an interface that are not of the link alone, each with its prefix length."""
        index = self.link(name)["index"]
        found = self.kernel(lambda opened: list(opened.get_addr(index=index)))
        return {f"{each.get('address')}/{each['prefixlen']}" for each in found if each["scope"] == _EVERYWHERE}

    def neighbours(self, name: str) -> dict[str, str]:
        """MACs that are known for ever at an interface, by address."""
        index = self.link(name)["index"]
        found = self.kernel(lambda opened: list(opened.get_neighbours(ifindex=index)))
        return {each.get("dst"): each.get("lladdr") for each in found if each["state"] & _PERMANENT}

    def links(self) -> set[str]:
        return {name for _, name in self.do(socket.if_nameindex)}

    def rules(self) -> str:
        return self.run("nft", "list", "ruleset")


def _unshared() -> int:
    _checked(_libc.unshare(_CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _in_thread(what: Callable[[], Result]) -> Result:
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(what())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]

"""nft's language, run in this process by libnftables, or where that is absent by the program `nft`.

See libnftables(3). A text is one transaction: all of it or nothing. A fork of `nft` costs a hundred times as much.
"""

import ctypes
import json
import subprocess
from typing import Any, Protocol

from ingle.host_helper.errors import KernelRefused, Missing

_LIBRARY = "libnftables.so.1"
_JSON_AND_TERSE = 1 << 4 | 1 << 11  # NFT_CTX_OUTPUT_JSON, NFT_CTX_OUTPUT_TERSE: nftables/libnftables.h
_LIST = "list ruleset"
_TIMEOUT_SECONDS = 30.0
_LONG_TEXT = 16 * 1024


class Nft(Protocol):
    """Runs commands."""

    def run(self, commands: str) -> None:
        """One transaction. Raises KernelRefused with what nft said, and then nothing has changed."""

    def ruleset(self) -> list[Any]:
        """Everybody's tables, chains and rules, without what is in sets: libnftables-json(5). Raises KernelRefused."""


def open_nft() -> Nft:
    """The library when it is there, else the program."""
    try:
        return _Library(ctypes.CDLL(_LIBRARY))
    except OSError:
        return _Program()


class _Library:
    """Seven functions of libnftables. For one thread at a time."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's, malloc_trim(3)
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_buffer_output.argtypes = [ctypes.c_void_p]
        library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        library.nft_ctx_get_output_buffer.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._context = library.nft_ctx_new(0)
        if self._context is None:
            raise Missing("nftables: no context", "is CAP_NET_ADMIN there?")
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> None:
        self._run(commands)

    def ruleset(self) -> list[Any]:
        self._library.nft_ctx_output_set_flags(self._context, _JSON_AND_TERSE)
        try:
            return _items(self._run(_LIST))
        finally:
            self._library.nft_ctx_output_set_flags(self._context, 0)

    def _run(self, commands: str) -> bytes:
        result = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        # Read each time, for that is what empties them.
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        complaint = self._library.nft_ctx_get_error_buffer(self._context)
        if len(commands) > _LONG_TEXT and self._trim is not None:
            self._trim(0)  # what the library has freed, megabytes of it, the C library would keep
        if result != 0:
            raise KernelRefused(f"nftables: {_brief(complaint)}")
        return output


class _Program:
    """The program `nft`."""

    def run(self, commands: str) -> None:
        self._run(["-f", "-"], commands)

    def ruleset(self) -> list[Any]:
        return _items(self._run(["-j", "-t", _LIST], ""))

    @staticmethod
    def _run(arguments: list[str], stdin: str) -> bytes:
        command = ["nft", *arguments]
        try:
            done = subprocess.run(
                command, input=stdin.encode(), capture_output=True, check=False, timeout=_TIMEOUT_SECONDS
            )
        except FileNotFoundError:
            raise Missing(f"neither {_LIBRARY} nor nft is there", "apt-get install libnftables1") from None
        except subprocess.TimeoutExpired:
            raise KernelRefused(f"nft took more than {_TIMEOUT_SECONDS:.0f} s") from None
        if done.returncode != 0:
            raise KernelRefused(f"nftables: {_brief(done.stderr)}")
        return done.stdout


def _items(output: bytes) -> list[Any]:
    items: list[Any] = json.loads(output)["nftables"]
    return items


def _brief(output: bytes | None) -> str:
    """The first complaint, without the line that it shows again."""
    lines = (output or b"").decode(errors="replace").splitlines()
    return lines[0] if lines else "refused without a word"

"""Living beside those who drop what they don't know: an accept in our table does not undo a drop in theirs.

Docker sets iptables' FORWARD to DROP and leaves DOCKER-USER to others; firewall scripts do the like. Where such rules
are, two of ours, tagged with a comment, let our bridges' traffic pass theirs. What may pass is decided by our own
table: its drop is final. We remove exactly these two rules, and only where they are.
"""

import logging
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ingle.host_helper.errors import KernelRefused
from ingle.host_helper.names import BRIDGE_PREFIX
from ingle.host_helper.nft import Nft

log = logging.getLogger(__name__)

_CHAINS = ("DOCKER-USER", "FORWARD")
_TAG = ["-m", "comment", "--comment", "ingle", "-j", "ACCEPT"]
_RULES = (["-i", f"{BRIDGE_PREFIX}+", *_TAG], ["-o", f"{BRIDGE_PREFIX}+", *_TAG])
_LOCK_SECONDS = "10"
_TIMEOUT_SECONDS = 30.0


def pass_others(nft: Nft, wanted: bool) -> None:
    """Have our two rules where others drop, or nowhere. Never fails: what can't be done is logged."""
    for program in _programs(nft):
        for chain in _CHAINS:
            try:
                present = _list(program, chain)
                place = wanted and _is_place(program, chain, present)
                for rule in _RULES:
                    _set(program, chain, rule, place)
            except (OSError, subprocess.SubprocessError) as error:
                log.error("%s %s: %s", program, chain, error)


def _programs(nft: Nft) -> Iterator[str]:
    """Those whose tables this host has: on most hosts none, and then no program is started."""
    legacy = legacy_versions(Path("/proc/self/net"))
    for version, program in ("", "iptables"), ("6", "ip6tables"):
        if version in legacy:
            yield f"{program}-legacy"
        with suppress(KernelRefused):
            nft.run(f"list chain ip{version} filter FORWARD")
            yield f"{program}-nft"


def _is_place(program: str, chain: str, present: list[str]) -> bool:
    """DOCKER-USER when it is there; else FORWARD when anything in it could drop."""
    if not present:
        return False
    if chain == "DOCKER-USER":
        return True
    others = [line for line in present if line.startswith("-A") and "--comment ingle " not in f"{line} "]
    return not _list(program, "DOCKER-USER") and (bool(others) or f"-P {chain} DROP" in present)


def _set(program: str, chain: str, rule: list[str], wanted: bool) -> None:
    present = _succeeds([program, "-w", _LOCK_SECONDS, "-C", chain, *rule])
    if wanted and not present:
        _run([program, "-w", _LOCK_SECONDS, "-I", chain, *rule]).check_returncode()
    while not wanted and present:
        _run([program, "-w", _LOCK_SECONDS, "-D", chain, *rule]).check_returncode()
        present = _succeeds([program, "-w", _LOCK_SECONDS, "-C", chain, *rule])


def _list(program: str, chain: str) -> list[str]:
    """A chain as `-S` prints it; nothing when it isn't there."""
    done = _run([program, "-w", _LOCK_SECONDS, "-S", chain])
    return done.stdout.decode(errors="replace").splitlines() if done.returncode == 0 else []


def legacy_versions(directory: Path) -> list[str]:
    """Of IP, "" and "6", those for which the older iptables has a filter table; `directory` is a net(5) of /proc."""
    return [version for version in ("", "6") if _mentions_filter(directory / f"ip{version}_tables_names")]


def _mentions_filter(names: Path) -> bool:
    try:
        return "filter" in names.read_text().split()
    except OSError:
        return False


def _succeeds(command: list[str]) -> bool:
    try:
        return _run(command).returncode == 0
    except FileNotFoundError:
        return False


def _run(command: list[str]) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_TIMEOUT_SECONDS)

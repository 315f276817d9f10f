"""Living beside those who drop what they don't know: an accept in our table does not undo a drop in theirs.

Docker sets iptables' FORWARD to DROP and leaves DOCKER-USER to others; ufw and firewall scripts do the like, with
INPUT too. Where such rules are, ours stand before them, tagged with a comment, and let our bridges' traffic pass. What
may pass is decided by our own table: its drop is final. We remove exactly these rules, and only where they are.
"""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ingle.host_helper.errors import KernelRefused
from ingle.host_helper.names import BRIDGE_PREFIX
from ingle.host_helper.nft import Nft

log = logging.getLogger(__name__)

_FROM, _TO = (f"{way} {BRIDGE_PREFIX}+ -m comment --comment ingle -j ACCEPT" for way in ("-i", "-o"))
_RULES = {"DOCKER-USER": (_FROM, _TO), "FORWARD": (_FROM, _TO), "INPUT": (_FROM,)}
"""As `iptables -S` writes them."""

_LOCK_SECONDS = "10"
_TIMEOUT_SECONDS = 30.0


def pass_others(nft: Nft, wanted: bool) -> None:
    """Have our rules where others drop, or nowhere. Never fails: what can't be done is logged."""
    for program in _programs(nft):
        for chain, rules in _RULES.items():
            try:
                present = _list(program, chain)
                _arrange(program, chain, present, rules if wanted and _is_place(program, chain, present) else ())
            except (OSError, subprocess.SubprocessError) as error:
                log.error("%s %s: %s", program, chain, error)


def _programs(nft: Nft) -> Iterator[str]:
    """Those whose tables this host has: on most hosts none, and then no program is started."""
    legacy = legacy_versions(Path("/proc/self/net"))
    for version, program in ("", "iptables"), ("6", "ip6tables"):
        if version in legacy:
            yield f"{program}-legacy"
        if any(_is_there(nft, f"ip{version} filter {chain}") for chain in _RULES):
            yield f"{program}-nft"


def _is_there(nft: Nft, chain: str) -> bool:
    try:
        nft.run(f"list chain {chain}")
    except KernelRefused:
        return False
    return True


def _is_place(program: str, chain: str, present: list[str]) -> bool:
    """DOCKER-USER when it is there, in place of FORWARD; else a chain in which anything could drop."""
    if chain == "DOCKER-USER":
        return bool(present)
    if chain == "FORWARD" and _list(program, "DOCKER-USER"):
        return False
    others = [line for line in present if line.startswith("-A") and not _is_ours(chain, line)]
    return bool(others) or f"-P {chain} DROP" in present


def _arrange(program: str, chain: str, present: list[str], wanted: tuple[str, ...]) -> None:
    """Have of ours those that are wanted, before all others'."""
    lines = [line for line in present if line.startswith("-A")]
    ours = [line for line in lines if _is_ours(chain, line)]
    rules = [f"-A {chain} {rule}" for rule in wanted]
    if ours == rules == lines[: len(rules)]:
        return
    for line in ours:
        _run(program, "-D", *line.split()[1:]).check_returncode()
    for rule in reversed(wanted):
        _run(program, "-I", chain, *rule.split()).check_returncode()


def _is_ours(chain: str, line: str) -> bool:
    return line in {f"-A {chain} {rule}" for rule in _RULES[chain]}


def _list(program: str, chain: str) -> list[str]:
    """A chain as `-S` prints it; nothing when it isn't there."""
    done = _run(program, "-S", chain)
    return done.stdout.decode(errors="replace").splitlines() if done.returncode == 0 else []


def legacy_versions(directory: Path) -> list[str]:
    """Of IP, "" and "6", those for which the older iptables has a filter table; `directory` is a net(5) of /proc."""
    return [version for version in ("", "6") if _mentions_filter(directory / f"ip{version}_tables_names")]


def _mentions_filter(names: Path) -> bool:
    try:
        return "filter" in names.read_text().split()
    except OSError:
        return False


def _run(program: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    command = [program, "-w", _LOCK_SECONDS, *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_TIMEOUT_SECONDS)

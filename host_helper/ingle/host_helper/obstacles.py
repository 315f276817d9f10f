"""Whose firewall on this host is in the way of VMs: found by reading, and told in types.

A packet passes only when every base chain of its hook lets it, so what our tables accept another's chain may still
drop. What coexistence.py has put there, or an operator, is seen as what it is: rules that accept what comes from our
bridges and what goes to them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper.coexistence import legacy_versions
from ingle.host_helper.firewall import TABLE
from ingle.host_helper.names import BRIDGE_PREFIX
from ingle.host_helper.nft import Nft

_FAMILIES = {"inet", "ip", "ip6"}
_KINDS = {
    "forward": pb.OBSTACLE_KIND_FORWARD_DROPPED,
    "input": pb.OBSTACLE_KIND_INPUT_DROPPED,
}
_MUST_PASS = {"forward": {"iifname", "oifname"}, "input": {"iifname"}}
"""By hook: in which of the two our bridges must be accepted."""

_BRIDGES = f"{BRIDGE_PREFIX}*"

Statements: TypeAlias = list[Any]
Rules: TypeAlias = Mapping[tuple[str, str, str], list[Statements]]
"""By family, table and chain; libnftables-json(5) says what is in a statement."""


def find_obstacles(nft: Nft, *, connected: bool) -> list[pb.Obstacle]:
    """All there are. `connected`: there is a network of ours, so coexistence.py has done what it can.

    Raises KernelRefused, Missing."""
    legacy = [
        pb.Obstacle(kind=pb.OBSTACLE_KIND_LEGACY_IPTABLES, family=f"ip{version}", table="filter", chain="FORWARD")
        for version in legacy_versions(Path("/proc/self/net"))
    ]
    return [*_dropping(nft.ruleset(), connected), *legacy]


def _dropping(ruleset: list[Any], connected: bool) -> Iterator[pb.Obstacle]:
    rules: dict[tuple[str, str, str], list[Statements]] = {}
    for item in ruleset:
        if rule := item.get("rule"):
            rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule["expr"])
    for item in ruleset:
        chain = item.get("chain", {})
        family, table, hook = chain.get("family"), chain.get("table"), chain.get("hook")
        if family not in _FAMILIES or hook not in _KINDS or chain["type"] != "filter" or table == TABLE:
            continue
        place = family, table, chain["name"]
        if not connected and family in {"ip", "ip6"} and place[1:] in {("filter", "FORWARD"), ("filter", "INPUT")}:
            continue  # coexistence.py opens it for the first network
        if not _passes(_in_order(rules, place, set()), _MUST_PASS[hook], otherwise=chain.get("policy") != "drop"):
            yield pb.Obstacle(kind=_KINDS[hook], family=family, table=table, chain=chain["name"])


def _passes(rules: Iterator[Statements], wanted: set[str], *, otherwise: bool) -> bool:
    """Whether a chain lets through what comes from our bridges and goes to them. `otherwise`: its policy does."""
    missing = set(wanted)
    for statements in rules:
        verdict, conditions = _taken_apart(statements)
        if verdict == "accept":
            missing -= {key for key in wanted if conditions == [key]} if conditions else wanted
        if not missing:
            return True
        if verdict in {"drop", "reject"} and not conditions:
            return False
    return otherwise


def _in_order(rules: Rules, place: tuple[str, str, str], seen: set[tuple[str, str, str]]) -> Iterator[Statements]:
    """A chain's rules, and those of chains that everything is sent to, as a packet meets them."""
    seen.add(place)
    for statements in rules.get(place, []):
        verdict, conditions = _taken_apart(statements)
        if not conditions and verdict == "return":
            return
        if not conditions and verdict in {"jump", "goto"}:
            there = (*place[:2], statements[-1][verdict]["target"])
            if there not in seen:
                yield from _in_order(rules, there, seen)
        else:
            yield statements


def _taken_apart(statements: Statements) -> tuple[str, list[str]]:
    """A rule's verdict, and what it asks first: `iifname` or `oifname` for our bridges, "?" for anything else."""
    verdict = ""
    conditions = []
    for statement in statements:
        ((kind, what),) = statement.items()
        if kind in {"accept", "drop", "reject", "jump", "goto", "return"}:
            verdict = kind
        elif kind == "match" and what["op"] == "==" and _names_bridges(what["right"]):
            conditions.append(_meta_key(what["left"]))
        elif kind not in {"counter", "log"} and what != {"type": "match", "name": "comment"}:
            conditions.append("?")
    return verdict, conditions


def _names_bridges(expression: Any) -> bool:
    """`"ingb*"`, by itself or in `{"set": [...]}`."""
    return expression == _BRIDGES or (isinstance(expression, dict) and _BRIDGES in expression.get("set", ()))


def _meta_key(expression: Any) -> str:
    """Of `{"meta": {"key": "iifname"}}`: iifname."""
    meta = expression.get("meta") if isinstance(expression, dict) else None
    return str(meta["key"]) if meta else "?"

"""How a root helper is: whether it answers, what room it has, and what it sees that only root can see."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ingle.api_server.adapters.helper.client import HelperClient
from ingle.helper.v1 import helper_pb2 as pb


class ObstacleKind(Enum):
    """What somebody else's firewall does."""

    FORWARD_DROPPED = pb.OBSTACLE_KIND_FORWARD_DROPPED
    INPUT_DROPPED = pb.OBSTACLE_KIND_INPUT_DROPPED
    LEGACY_IPTABLES = pb.OBSTACLE_KIND_LEGACY_IPTABLES


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Where it does it: nft's words for family, table and chain."""

    kind: ObstacleKind
    family: str
    table: str
    chain: str


@dataclass(frozen=True, slots=True)
class Usage:
    """`limit` is the helper's policy's."""

    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class HelperFindings:
    """What it says of itself and of the host. Of what another helper serves, the limit is 0."""

    version: str
    networks: Usage
    taps: Usage
    devices: Usage
    obstacles: tuple[Obstacle, ...]
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """A network that somebody else has on this host, and a pool of VMs' addresses that has some in common with it.

    `interface` is empty for a rule; `source` is e.g. "route in table 52"."""

    pool: str
    network: str
    interface: str
    source: str


async def find_overlaps(socket: Path, unit: str) -> tuple[Overlap, ...]:
    """Ask the helper of `unit` on `socket`, which takes a second for it. Raises as examine_helper."""
    client = HelperClient(socket, unit, patience=0.0)
    told = await client.ask(lambda helper: helper.FindOverlaps, pb.FindOverlapsRequest())
    return tuple(Overlap(each.pool, each.network, each.interface, each.source) for each in told.overlaps)


async def examine_helper(socket: Path, unit: str) -> HelperFindings:
    """Ask the helper of `unit` on `socket`.

    Raises HostProblem(DEPENDENCY_MISSING) at once when nobody answers, IngleError with the helper's own reason."""
    helper = HelperClient(socket, unit, patience=0.0)
    version = (await helper.ask(lambda helper: helper.Ping, pb.PingRequest())).version
    told = await helper.ask(lambda helper: helper.Examine, pb.ExamineRequest())
    return HelperFindings(
        version,
        _usage(told.networks),
        _usage(told.taps),
        _usage(told.devices),
        tuple(Obstacle(ObstacleKind(each.kind), each.family, each.table, each.chain) for each in told.obstacles),
        tuple(told.capabilities),
    )


def _usage(message: pb.Usage) -> Usage:
    return Usage(message.used, message.limit)

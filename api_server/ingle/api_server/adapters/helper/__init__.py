"""What only root can do, asked of the helper."""

from ingle.api_server.adapters.helper.absent import AbsentDevices, AbsentNetwork
from ingle.api_server.adapters.helper.devices import HelperDevices
from ingle.api_server.adapters.helper.examination import (
    HelperFindings,
    Obstacle,
    ObstacleKind,
    Overlap,
    Usage,
    examine_helper,
    find_overlaps,
)
from ingle.api_server.adapters.helper.network import HelperNetwork

__all__ = [
    "AbsentDevices",
    "AbsentNetwork",
    "HelperDevices",
    "HelperFindings",
    "HelperNetwork",
    "Obstacle",
    "ObstacleKind",
    "Overlap",
    "Usage",
    "examine_helper",
    "find_overlaps",
]

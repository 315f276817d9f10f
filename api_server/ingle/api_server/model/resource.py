"""What operations make, change and take away."""

from dataclasses import dataclass
from enum import Enum


class ResourceKind(Enum):
    """Of what kind it is. Values are stored."""

    VM = "vm"
    IMAGE = "image"
    KERNEL = "kernel"
    SNAPSHOT = "snapshot"
    WARM_MEMORY = "warm memory"

    @property
    def told(self) -> bool:
        """Whether there are events of it: of what is in a cache there are none."""
        return self is not ResourceKind.WARM_MEMORY


@dataclass(frozen=True, slots=True)
class Resource:
    """One of them, for ever: ids are never given twice."""

    kind: ResourceKind
    id: str

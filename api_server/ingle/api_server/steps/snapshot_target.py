"""What the steps of a snapshot's pipelines work on."""

from dataclasses import dataclass, field
from pathlib import Path

from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.model.snapshot import Snapshot
from ingle.api_server.model.vm import Kernel, Vm


@dataclass(slots=True)
class SnapshotTarget:
    """One snapshot on its way. Undo may rely on these alone: after a crash nothing else is known."""

    op_id: str
    snapshot_id: str

    @property
    def resource(self) -> Resource:
        """As the journal has it."""
        return Resource(ResourceKind.SNAPSHOT, self.snapshot_id)


@dataclass(slots=True)
class Making(SnapshotTarget):
    """A snapshot being made: earlier steps find out what later ones need."""

    snapshot: Snapshot
    vm: Vm
    """The one that it is of."""

    kernel: Kernel
    token: bytes = field(default=b"", repr=False)
    """What its guest's agent wants."""

    against: str = ""
    """The snapshot against which it is stored; empty: that on which its disk rests, if any, and its memory whole."""

    wished: bool = False
    """Whether that is to be so, and not only where it saves room."""

    full: bool = False
    """Whether it is to need no other."""

    new_directory: Path | None = None
    held: bool = False
    """Whether its guest stands still for it."""

    @property
    def directory(self) -> Path:
        """Where it is made, which an earlier step knows."""
        assert self.new_directory is not None
        return self.new_directory

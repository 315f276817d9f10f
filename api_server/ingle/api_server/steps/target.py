"""What the steps of a VM's pipelines work on."""

from dataclasses import dataclass, field
from pathlib import Path

from ingle.api_server.model.vm import Acceleration, Image, Kernel, Owner, Vm
from ingle.api_server.ports.engine import Vmm, VmPaths
from ingle.api_server.ports.network import Link


@dataclass(slots=True)
class VmTarget:
    """One VM on its way. Undo may rely on `op_id`, `vm_id` and `paths` alone: after a crash nothing else is known."""

    op_id: str
    vm_id: str
    paths: VmPaths


@dataclass(slots=True)
class Start(VmTarget):
    """A VM being created or started: earlier steps find out what later ones need."""

    vm: Vm
    image: Image
    kernel: Kernel
    token: bytes = field(repr=False)
    acceleration: Acceleration = Acceleration.AUTO
    owner: Owner | None = None
    created: bool = False
    """Whether nobody has had this VM before."""
    link: Link | None = None
    root_disk: Path | None = None
    vmm: Vmm | None = None
    boot_id: str = ""

    @property
    def attached_disk(self) -> Path:
        """What the VMM opens, which the attaching step knows."""
        assert self.root_disk is not None
        return self.root_disk

    @property
    def live_vmm(self) -> Vmm:
        """The VMM, which the launch step has started."""
        assert self.vmm is not None
        return self.vmm

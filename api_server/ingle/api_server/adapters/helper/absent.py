"""HostNetwork and SnapshotDevices where no helper is installed."""

from collections.abc import Collection

from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.activation import Waken
from ingle.api_server.ports.devices import SnapshotDevice, WantedDevice
from ingle.api_server.ports.network import Link

_PROBLEM = "networks that VMs share take the root helper of a system install"
_NO_DEVICES = "disks as device-mapper snapshots take the root helper of a system install"
_INSTALL = "sudo ingle system install"


class AbsentNetwork:
    """Connects nobody."""

    waken: Waken

    async def problem(self) -> str:
        return _PROBLEM

    async def connect(self, vm: Vm) -> Link:
        raise HostProblem(Reason.DEPENDENCY_MISSING, f"VM {vm.name!r}: {_PROBLEM}", _INSTALL)

    def close(self) -> None:
        """There is nothing to let go of."""

    async def lead_dns(self, network: int, port: int) -> None:
        raise HostProblem(Reason.DEPENDENCY_MISSING, _PROBLEM, _INSTALL)

    async def disconnect(self, slot: int, vm_id: str) -> None:
        raise HostProblem(Reason.DEPENDENCY_MISSING, f"VM {vm_id}: {_PROBLEM}", _INSTALL)

    async def connect_nowhere(self, vm_id: str) -> Link:
        raise HostProblem(Reason.DEPENDENCY_MISSING, _PROBLEM, _INSTALL)

    async def disconnect_nowhere(self, vm_id: str) -> None:
        """Absent is fine."""

    async def reconcile(self, vms: Collection[Vm]) -> None:
        raise HostProblem(Reason.DEPENDENCY_MISSING, _PROBLEM, _INSTALL)


class AbsentDevices:
    """Makes none, so there is none to remove."""

    async def problem(self) -> str:
        return f"{_NO_DEVICES} (try: {_INSTALL})"

    async def ensure(self, wanted: WantedDevice) -> SnapshotDevice:
        raise HostProblem(Reason.DEPENDENCY_MISSING, f"VM {wanted.vm_id}: {_NO_DEVICES}", _INSTALL)

    async def remove(self, vm_id: str) -> None:
        """Absent is fine."""

    async def find(self, vm_id: str) -> SnapshotDevice | None:
        return None

    async def reconcile(self, wanted: Collection[WantedDevice]) -> None:
        if wanted:
            raise HostProblem(Reason.DEPENDENCY_MISSING, _NO_DEVICES, _INSTALL)

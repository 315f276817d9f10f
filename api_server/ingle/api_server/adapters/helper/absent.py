"""HostNetwork where no helper is installed."""

from collections.abc import Collection

from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.network import Link

_PROBLEM = "networks that VMs share take the root helper of a system install"


class AbsentNetwork:
    """Connects nobody."""

    async def problem(self) -> str:
        return _PROBLEM

    async def connect(self, vm: Vm) -> Link:
        raise HostProblem(Reason.DEPENDENCY_MISSING, f"VM {vm.name!r}: {_PROBLEM}", "sudo ingle system install")

    async def disconnect(self, slot: int, vm_id: str) -> None:
        raise HostProblem(Reason.DEPENDENCY_MISSING, f"VM {vm_id}: {_PROBLEM}", "sudo ingle system install")

    async def reconcile(self, vms: Collection[Vm]) -> None:
        raise HostProblem(Reason.DEPENDENCY_MISSING, _PROBLEM, "sudo ingle system install")

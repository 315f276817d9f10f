"""How the VMs are that a caller may know, and what there is for more of them."""

from ingle.api_server.doctor.quota import quota_check
from ingle.api_server.model.caller import Caller
from ingle.api_server.model.check import Check
from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.quota import Quota
from ingle.api_server.operations.disk_room import DiskRoom
from ingle.api_server.operations.inspect_vm import InspectVm
from ingle.api_server.operations.placement import Placement
from ingle.api_server.ports.store.vms import VmStore


async def vm_checks(
    caller: Caller, vms: VmStore, placement: Placement, inspect: InspectVm, room: DiskRoom, quota: Quota
) -> list[Check]:
    """What is wrong with the database must not hide what else there is; the doctor tells that, too."""
    try:
        return [
            placement.check(await vms.of(caller, all_users=caller.admin), caller),
            await inspect.check(caller),
            await room.check(),
            quota_check(quota, await vms.use(caller.uid)),
        ]
    except IngleError as error:
        return [Check("vms", "fail", error.message, error.remedy)]

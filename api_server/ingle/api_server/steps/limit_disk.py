"""Have a VMM that lives keep to what its VM may now take of its disk."""

from ingle.api_server.steps.target import Change, VmTarget


class LimitDisk:
    """A server that starts does it for every VMM that it adopts, so only a failure needs the way back."""

    name = "limit-disk"
    text = "changing how much it may take of its disk"

    async def run(self, target: Change) -> None:
        assert target.vmm is not None
        await target.vmm.limit_disk(target.after.settings.disk_rates)

    async def undo(self, target: VmTarget) -> None:
        if isinstance(target, Change) and target.vmm is not None:
            await target.vmm.limit_disk(target.before.settings.disk_rates)

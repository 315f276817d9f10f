"""SnapshotDevices through the root helper for disks."""

from collections.abc import Collection
from pathlib import Path

from ingle.api_server.adapters.helper.client import PATIENCE_SECONDS, HelperClient
from ingle.api_server.model.errors import IngleError
from ingle.api_server.ports.devices import SnapshotDevice, WantedDevice
from ingle.helper.v1 import helper_pb2 as pb

_UNIT = "ingle-helper-dm"


class HelperDevices:
    """Implements ports.devices.SnapshotDevices over the helper's socket."""

    def __init__(self, socket: Path, patience: float = PATIENCE_SECONDS) -> None:
        self._helper = HelperClient(socket, _UNIT, patience)
        self._look = HelperClient(socket, _UNIT, patience=0.0)  # who only looks has better things to do than to wait

    async def problem(self) -> str:
        try:
            await self._helper.ask(lambda helper: helper.Ping, pb.PingRequest())
        except IngleError as error:
            return f"{error.message} (try: {error.remedy})" if error.remedy else error.message
        return ""

    async def ensure(self, wanted: WantedDevice) -> SnapshotDevice:
        # One that a stop could not remove may have been outgrown meanwhile. Both at once: what is right already stays.
        request = pb.ApplyRequest(
            changes=[
                pb.Change(remove_snapshot_device=pb.RemoveSnapshotDeviceRequest(vm_id=wanted.vm_id)),
                pb.Change(
                    create_snapshot_device=pb.CreateSnapshotDeviceRequest(
                        vm_id=wanted.vm_id, image_id=wanted.image_id, size_bytes=wanted.size_bytes
                    )
                ),
            ]
        )
        (device,) = (await self._helper.ask(lambda helper: helper.Apply, request)).devices
        return _device(device)

    async def remove(self, vm_id: str) -> None:
        request = pb.RemoveSnapshotDeviceRequest(vm_id=vm_id)
        await self._helper.ask(lambda helper: helper.RemoveSnapshotDevice, request)

    async def find(self, vm_id: str) -> SnapshotDevice | None:
        listed = await self._look.ask(lambda helper: helper.List, pb.ListRequest())
        for device in listed.devices:
            if device.vm_id == vm_id and device.state != pb.SNAPSHOT_STATE_MISSING:
                return _device(device)
        return None

    async def reconcile(self, wanted: Collection[WantedDevice]) -> None:
        devices = [
            pb.WantedDevice(vm_id=each.vm_id, image_id=each.image_id, size_bytes=each.size_bytes) for each in wanted
        ]
        await self._helper.ask(lambda helper: helper.Reconcile, pb.ReconcileRequest(devices=devices))


def _device(message: pb.SnapshotDevice) -> SnapshotDevice:
    return SnapshotDevice(
        path=Path(message.path),
        overflowed=message.state == pb.SNAPSHOT_STATE_OVERFLOWED,
        used_bytes=message.used_bytes,
        capacity_bytes=message.capacity_bytes,
    )

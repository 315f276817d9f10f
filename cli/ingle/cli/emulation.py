"""A word about a VM that is emulated: everything in it takes many times as long, and nobody would know why."""

import os
from contextlib import suppress

from ingle.cli import paths
from ingle.cli.client import Client
from ingle.cli.output import person_watches, tell
from ingle.v1 import vm_pb2


def tell_once(client: Client, vm_id: str) -> None:
    """To who watches, once in a terminal session, and not to who asked for it."""
    told = paths.runtime_directory() / f"told-emulated-{os.getsid(0)}"
    if not person_watches() or told.exists():
        return
    vm = client.call(vm_pb2.GetVmRequest(vm=vm_id), vm_pb2.GetVmResponse).vm
    if vm.running_acceleration != vm_pb2.ACCELERATION_TCG or vm.acceleration == vm_pb2.ACCELERATION_TCG:
        return
    tell("This host emulates VMs (tcg): programs in them take about ten times as long; why: ingle doctor")
    with suppress(OSError):
        told.touch()

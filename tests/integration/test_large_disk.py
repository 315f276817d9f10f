"""Disks far larger than their image: the file system grows online, at the first boot, also past its reserved room."""

import pytest

from harness import Server
from ingle.v1 import vm_pb2


@pytest.mark.parametrize("size", [10 << 30, 1 << 40])
def test_the_root_file_system_is_as_large_as_the_disk_and_stays_sound(server: Server, size: int) -> None:
    spec = vm_pb2.VmSpec(disk_bytes=size)
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm
    try:
        _, out, _ = server.run(vm.id, "df", "--block-size=1", "--output=size", "/")
        assert int(out.split()[-1]) > size * 0.97
        assert server.run(vm.id, "sh", "-c", "head -c 9000000 /dev/urandom > /data && sha256sum /data > /sum")[0] == 0
        server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=vm.id))
        assert server.run(vm.id, "sha256sum", "--check", "/sum") == (0, b"/data: OK\n", b"")
        code, out, _ = server.run(vm.id, "sh", "-c", "dmesg | grep -i 'EXT4-fs error'")
        assert (code, out) == (1, b"")
        used = server.vms.GetVmStats(vm_pb2.GetVmStatsRequest(vm=vm.id)).vmm.disk_allocated_bytes
        assert used < 300 << 20
    finally:
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))

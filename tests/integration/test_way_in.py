"""The way to an agent: no network is needed for it, and who comes next finds it whatever was under way."""

import os
import threading
from contextlib import suppress

import grpc

from harness import NewServer, Server
from ingle.v1 import vm_pb2

TIMES = 3
DOWN, UP = "0x1002", "0x1003"  # IFF_BROADCAST, IFF_MULTICAST, and IFF_UP: see netdevice(7)


def test_the_agent_answers_while_the_guests_network_is_down(server: Server, vm: vm_pb2.Vm) -> None:
    devices = "for each in lo eth0; do echo {} >/sys/class/net/$each/flags; done; cat /sys/class/net/eth0/flags"
    assert server.run(vm.id, "sh", "-c", devices.format(DOWN))[:2] == (0, f"{DOWN}\n".encode())
    data = os.urandom(1 << 20)
    assert server.run(vm.id, "cat", stdin=data) == (0, data, b"")
    assert server.vms.GetVmHealth(vm_pb2.GetVmHealthRequest(vm=vm.id)).agent_answers
    assert server.run(vm.id, "sh", "-c", devices.format(UP))[:2] == (0, f"{UP}\n".encode())


def test_a_server_killed_amid_output_and_input_is_followed_by_one_that_hears_only_its_own(
    new_server: NewServer,
) -> None:
    server = new_server()
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm

    def flood() -> None:
        with suppress(grpc.RpcError):
            server.run(vm.id, "sh", "-c", "cat /dev/zero & exec cat", stdin=bytes(64 << 20))

    for _ in range(TIMES):
        flooding = threading.Thread(target=flood)
        flooding.start()
        while server.run(vm.id, "sh", "-c", "grep -lszx '[/]dev/zero' /proc/[0-9]*/cmdline")[0] != 0:
            pass
        server.kill()
        flooding.join()
        server.start()
        data = os.urandom(300_000)
        assert server.run(vm.id, "cat", stdin=data) == (0, data, b"")
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))

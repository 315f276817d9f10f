"""Ports of a guest that the host has too."""

import socket

import grpc
import pytest

from free_ports import free_port
from harness import Server, refused
from ingle.v1 import protocol_pb2, vm_pb2

ANSWER_ON_80 = """
use IO::Socket::INET;
my $tcp = IO::Socket::INET->new(LocalPort => 80, Listen => 5, ReuseAddr => 1) or die;
my $udp = IO::Socket::INET->new(LocalPort => 53, Proto => "udp") or die;
exit if fork;
if (fork) { while (my $caller = $tcp->accept) { my $line = <$caller>; print $caller "heard $line"; close $caller } }
else { while ($udp->recv(my $data, 100)) { $udp->send("heard $data") } }
"""


def ask_tcp(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
        caller.sendall(b"hello\n")
        return caller.makefile("rb").read()


def ask_udp(port: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.settimeout(1)
        for _ in range(10):
            caller.sendto(b"hello", ("127.0.0.1", port))
            try:
                return caller.recv(100)
            except TimeoutError:
                continue
    raise AssertionError("no answer")


def test_services_of_the_guest_are_reached_at_the_hosts_ports(server: Server) -> None:
    tcp, udp = free_port(), free_port(socket.SOCK_DGRAM)
    ports = [
        vm_pb2.PublishedPort(host_port=tcp, vm_port=80, address="127.0.0.1"),
        vm_pb2.PublishedPort(host_port=udp, vm_port=53, protocol=protocol_pb2.PROTOCOL_UDP),
    ]
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(ports=ports))).vm
    try:
        assert [(port.address, port.host_port, port.vm_port, port.protocol) for port in vm.ports] == [
            ("127.0.0.1", tcp, 80, protocol_pb2.PROTOCOL_TCP),
            ("", udp, 53, protocol_pb2.PROTOCOL_UDP),
        ]
        assert server.run(vm.id, "perl", "-e", ANSWER_ON_80)[0] == 0
        assert ask_tcp(tcp) == b"heard hello\n"
        assert ask_udp(udp) == b"heard hello"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", tcp))
        server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id))
        with pytest.raises(ConnectionRefusedError):
            ask_tcp(tcp)
        server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id))
        assert server.run(vm.id, "perl", "-e", ANSWER_ON_80)[0] == 0
        assert ask_tcp(tcp) == b"heard hello\n"
    finally:
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def test_a_port_that_somebody_has_is_refused_before_anything_is_made(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        spec = vm_pb2.VmSpec(name="late", ports=[vm_pb2.PublishedPort(host_port=port, vm_port=80)])
        found = refused(server.vms.CreateVm, vm_pb2.CreateVmRequest(spec=spec))
        assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IN_USE")
        assert f"port {port}" in found.message
        assert str(port) in found.remedy
        assert "late" not in [vm.name for vm in server.list()]
        # Not started, it is in nobody's way; starting it later is refused the same, and it stays stopped.
        vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec, no_start=True)).vm
        assert refused(server.vms.StartVm, vm_pb2.StartVmRequest(vm=vm.id)).reason == "IN_USE"
        assert server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm.state == vm_pb2.VM_STATE_STOPPED
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id))


@pytest.mark.parametrize(
    ("ports", "complaint"),
    [
        ([vm_pb2.PublishedPort(host_port=0, vm_port=80)], "1 to 65535"),
        ([vm_pb2.PublishedPort(host_port=80, vm_port=65536)], "1 to 65535"),
        ([vm_pb2.PublishedPort(host_port=8080, vm_port=80, address="localhost")], "127.0.0.1"),
        ([vm_pb2.PublishedPort(host_port=8080, vm_port=80, address="192.0.2.1")], "no address of this host"),
        ([vm_pb2.PublishedPort(host_port=8080, vm_port=80), vm_pb2.PublishedPort(host_port=8080, vm_port=81)], "twice"),
    ],
)
def test_impossible_ports_are_refused(server: Server, ports: list[vm_pb2.PublishedPort], complaint: str) -> None:
    before = server.list()
    found = refused(server.vms.CreateVm, vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(ports=ports)))
    assert found.reason in {"INVALID_ARGUMENT", "PORT_REFUSED"}
    assert complaint in found.message
    assert server.list() == before

"""Telling a real guest about itself."""

import asyncio
import base64
import os
import time
from collections.abc import Iterator

import pytest

from harness import Server
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import Configured, GuestConfiguration, GuestNetwork
from ingle.v1 import vm_pb2

from .agent_of import agent_of

NETWORK = GuestNetwork("eth0", "10.0.2.15/24", "10.0.2.2", ("10.0.2.3",))


@pytest.fixture(scope="module")
def guest(server: Server) -> Iterator[vm_pb2.Vm]:
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    yield vm
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def configure(server: Server, vm: vm_pb2.Vm, configuration: GuestConfiguration) -> Configured:
    return asyncio.run(agent_of(server, vm).configure(configuration))


def said(server: Server, vm: vm_pb2.Vm, script: str) -> list[str]:
    code, out, err = server.run(vm.id, "sh", "-c", script)
    assert (code, err) == (0, b"")
    return out.decode().splitlines()


def key(comment: str) -> str:
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0 " + os.urandom(32)
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} {comment}"


def test_a_guest_keeps_time(server: Server, guest: vm_pb2.Vm) -> None:
    """By a clock that counts cycles: one that counts interrupts loses seconds whenever the host is busy."""
    source = said(server, guest, "cat /sys/devices/system/clocksource/clocksource0/current_clocksource")[0]
    assert source.startswith("tsc") or source == "kvm-clock"
    ahead = configure(server, guest, GuestConfiguration(unix_nanoseconds=time.time_ns(), clock_tolerance_seconds=60))
    assert ahead.clock_offset_seconds is not None
    assert ahead.clock_offset_seconds > -0.9  # of a busy host the question may come late, as if the clock were ahead
    assert not ahead.clock_stepped


def test_a_clock_that_is_late_is_set_and_one_that_somebody_in_the_guest_has_set_is_theirs(
    server: Server, guest: vm_pb2.Vm
) -> None:
    def tell_time() -> Configured:
        now = GuestConfiguration(
            unix_nanoseconds=time.time_ns(), clock_tolerance_seconds=1, clock_unless_set_by_guest=True
        )
        return configure(server, guest, now)

    configure(server, guest, GuestConfiguration(unix_nanoseconds=time.time_ns() - 3600 * 10**9))
    tell_time()
    assert abs(int(said(server, guest, "date +%s")[0]) - time.time()) < 60
    said(server, guest, "date -s @4102444800")
    assert not tell_time().clock_stepped
    assert said(server, guest, "date -u +%Y") == ["2100"]


def test_the_clock_is_set_when_it_is_off_by_more_than_is_tolerated(server: Server, guest: vm_pb2.Vm) -> None:
    year_2100 = 4_102_444_800
    set_to = configure(server, guest, GuestConfiguration(unix_nanoseconds=year_2100 * 10**9))
    assert set_to.clock_stepped
    assert said(server, guest, "date -u +%Y") == ["2100"]
    left = configure(server, guest, GuestConfiguration(unix_nanoseconds=10**9, clock_tolerance_seconds=9e9))
    assert not left.clock_stepped
    assert left.clock_offset_seconds is not None
    assert left.clock_offset_seconds > year_2100 - 2
    back = configure(server, guest, GuestConfiguration(unix_nanoseconds=time.time_ns()))
    assert back.clock_stepped
    assert said(server, guest, "date -u +%Y") == [time.strftime("%Y", time.gmtime())]


def test_name_and_network_are_changed_and_all_else_goes(server: Server, guest: vm_pb2.Vm) -> None:
    said(server, guest, "ip addr add 10.0.2.77/24 dev eth0; ip addr add 192.0.2.1/32 dev eth0; ip addr add ::7 dev lo")
    said(server, guest, "ip route add default via 10.0.2.3 metric 50; echo 192.0.2.9 mine >> /etc/hosts")
    v6 = GuestNetwork("eth0", "fd00::5/64", "", ("fd00::3",))
    wanted = GuestConfiguration(entropy=os.urandom(64), hostname="elsewhere", networks=(NETWORK, v6), announce=True)
    for _ in range(2):
        done = configure(server, guest, wanted)
        assert {"10.0.2.15", "fd00::5"} <= set(done.announced_addresses)
        assert said(server, guest, "hostname; cat /etc/hostname /etc/resolv.conf") == [
            *("elsewhere", "elsewhere", "nameserver 10.0.2.3", "nameserver fd00::3")
        ]
        assert said(server, guest, "tail -n 2 /etc/hosts") == ["192.0.2.9 mine", "10.0.2.15 elsewhere # ingle"]
        shown = said(server, guest, "ip -o addr show dev eth0 scope global; ip -o addr show dev lo; ip route")
        assert [line.split()[3] for line in shown if " inet" in line] == [
            *("10.0.2.15/24", "fd00::5/64", "127.0.0.1/8", "::7/128", "::1/128")
        ]
        assert [line.strip() for line in shown if "default" in line] == ["default via 10.0.2.2 dev eth0"]
    configure(server, guest, GuestConfiguration(hostname=guest.name))
    assert said(server, guest, "hostname; tail -n 1 /etc/hosts") == [guest.name, f"10.0.2.15 {guest.name} # ingle"]


def test_a_refused_configuration_changes_nothing(server: Server, guest: vm_pb2.Vm) -> None:
    wanted = GuestConfiguration(
        unix_nanoseconds=10**18, hostname="elsewhere", networks=(GuestNetwork("eth7", "10.9.9.9/24", "", ()),)
    )
    with pytest.raises(GuestError) as caught:
        configure(server, guest, wanted)
    assert caught.value.reason is Reason.GUEST_INTERFACE_NOT_FOUND
    assert said(server, guest, "hostname; date -u +%Y") == [guest.name, time.strftime("%Y", time.gmtime())]


def test_ssh_keys_come_and_go_beside_the_users_own(server: Server, guest: vm_pb2.Vm) -> None:
    said(server, guest, "useradd -m ember && mkdir /home/ember/.ssh && echo mine > /home/ember/.ssh/authorized_keys")
    said(server, guest, "chown -R ember: /home/ember/.ssh")
    one, two = key("one"), key("two")
    configure(server, guest, GuestConfiguration(ssh_keys={"": (one,), "ember": (one, two)}))
    shown = "cat {0}/authorized_keys; stat -c '%a %U' {0} {0}/authorized_keys"
    mark = " # managed by ingle"
    assert said(server, guest, shown.format("/root/.ssh")) == [one + mark, "700 root", "600 root"]
    assert said(server, guest, shown.format("/home/ember/.ssh")) == [
        *("mine", one + mark, two + mark, "700 ember", "600 ember")
    ]
    configure(server, guest, GuestConfiguration(ssh_keys={"ember": ()}))
    assert said(server, guest, shown.format("/home/ember/.ssh")) == ["mine", "700 ember", "600 ember"]


def test_an_ordinary_users_link_does_not_lead_root_anywhere(server: Server, guest: vm_pb2.Vm) -> None:
    said(server, guest, "useradd -m mallory; su mallory -c 'ln -s /etc ~/.ssh'; cp /etc/passwd /root/before")
    with pytest.raises(GuestError) as caught:
        configure(server, guest, GuestConfiguration(ssh_keys={"mallory": (key("one"),)}))
    assert caught.value.reason is Reason.SYMLINK_REFUSED
    assert said(server, guest, "ls /etc/authorized_keys 2>&1 | wc -l; stat -c %a /etc") == ["1", "755"]

"""Telling a real guest who it is."""

import base64
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from harness import Server
from ingle.api_server.adapters.vmm.boot import machine_id, user_mac
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import ExecSpec, GuestIdentity, GuestNetwork, IdentityTaken, Stdout
from ingle.api_server.ports.guest import GuestChannel
from ingle.v1 import vm_pb2

from .agent_of import ask_agent, ask_by_tokens, token_of

NETWORK = GuestNetwork("eth0", "10.0.2.15/24", "10.0.2.2", ("10.0.2.3",))


@pytest.fixture(scope="module")
def guest(server: Server) -> Iterator[vm_pb2.Vm]:
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    yield vm
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def take_identity(server: Server, vm: vm_pb2.Vm, identity: GuestIdentity) -> IdentityTaken:
    return ask_agent(server, vm, lambda agent: agent.take_identity(identity))


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
    ahead = take_identity(server, guest, GuestIdentity(unix_nanoseconds=time.time_ns(), clock_tolerance_seconds=60))
    assert ahead.clock_offset_seconds is not None
    assert ahead.clock_offset_seconds > -0.9  # of a busy host the question may come late, as if the clock were ahead
    assert not ahead.clock_stepped


def test_a_clock_that_is_late_is_set_and_one_that_somebody_in_the_guest_has_set_is_theirs(
    server: Server, guest: vm_pb2.Vm
) -> None:
    def tell_time() -> IdentityTaken:
        now = GuestIdentity(unix_nanoseconds=time.time_ns(), clock_tolerance_seconds=1, clock_unless_set_by_guest=True)
        return take_identity(server, guest, now)

    take_identity(server, guest, GuestIdentity(unix_nanoseconds=time.time_ns() - 3600 * 10**9))
    tell_time()
    assert abs(int(said(server, guest, "date +%s")[0]) - time.time()) < 60
    said(server, guest, "date -s @4102444800")
    assert not tell_time().clock_stepped
    assert said(server, guest, "date -u +%Y") == ["2100"]


def test_the_clock_is_set_when_it_is_off_by_more_than_is_tolerated(server: Server, guest: vm_pb2.Vm) -> None:
    year_2100 = 4_102_444_800
    set_to = take_identity(server, guest, GuestIdentity(unix_nanoseconds=year_2100 * 10**9))
    assert set_to.clock_stepped
    assert said(server, guest, "date -u +%Y") == ["2100"]
    left = take_identity(server, guest, GuestIdentity(unix_nanoseconds=10**9, clock_tolerance_seconds=9e9))
    assert not left.clock_stepped
    assert left.clock_offset_seconds is not None
    assert left.clock_offset_seconds > year_2100 - 2
    back = take_identity(server, guest, GuestIdentity(unix_nanoseconds=time.time_ns()))
    assert back.clock_stepped
    assert said(server, guest, "date -u +%Y") == [time.strftime("%Y", time.gmtime())]


def test_name_and_network_are_changed_and_all_else_goes(server: Server, guest: vm_pb2.Vm) -> None:
    said(server, guest, "ip addr add 10.0.2.77/24 dev eth0; ip addr add 192.0.2.1/32 dev eth0; ip addr add ::7 dev lo")
    said(server, guest, "ip route add default via 10.0.2.3 metric 50; echo 192.0.2.9 mine >> /etc/hosts")
    v6 = GuestNetwork("eth0", "fd00::5/64", "", ("fd00::3",))
    wanted = GuestIdentity(entropy=os.urandom(64), hostname="elsewhere", networks=(NETWORK, v6), announce=True)
    for _ in range(2):
        done = take_identity(server, guest, wanted)
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
    take_identity(server, guest, GuestIdentity(hostname=guest.name))
    assert said(server, guest, "hostname; tail -n 1 /etc/hosts") == [guest.name, f"10.0.2.15 {guest.name} # ingle"]


def test_a_refused_identity_changes_nothing(server: Server, guest: vm_pb2.Vm) -> None:
    wanted = GuestIdentity(
        unix_nanoseconds=10**18, hostname="elsewhere", networks=(GuestNetwork("eth7", "10.9.9.9/24", "", ()),)
    )
    with pytest.raises(GuestError) as caught:
        take_identity(server, guest, wanted)
    assert caught.value.reason is Reason.GUEST_INTERFACE_NOT_FOUND
    assert said(server, guest, "hostname; date -u +%Y") == [guest.name, time.strftime("%Y", time.gmtime())]


def test_ssh_keys_come_and_go_beside_the_users_own(server: Server, guest: vm_pb2.Vm) -> None:
    said(server, guest, "useradd -m ember && mkdir /home/ember/.ssh && echo mine > /home/ember/.ssh/authorized_keys")
    said(server, guest, "chown -R ember: /home/ember/.ssh")
    one, two = key("one"), key("two")
    take_identity(server, guest, GuestIdentity(ssh_keys={"": (one,), "ember": (one, two)}))
    shown = "cat {0}/authorized_keys; stat -c '%a %U' {0} {0}/authorized_keys"
    mark = " # managed by ingle"
    assert said(server, guest, shown.format("/root/.ssh")) == [one + mark, "700 root", "600 root"]
    assert said(server, guest, shown.format("/home/ember/.ssh")) == [
        *("mine", one + mark, two + mark, "700 ember", "600 ember")
    ]
    take_identity(server, guest, GuestIdentity(ssh_keys={"ember": ()}))
    assert said(server, guest, shown.format("/home/ember/.ssh")) == ["mine", "700 ember", "600 ember"]


def test_an_ordinary_users_link_does_not_lead_root_anywhere(server: Server, guest: vm_pb2.Vm) -> None:
    said(server, guest, "useradd -m mallory; su mallory -c 'ln -s /etc ~/.ssh'; cp /etc/passwd /root/before")
    with pytest.raises(GuestError) as caught:
        take_identity(server, guest, GuestIdentity(ssh_keys={"mallory": (key("one"),)}))
    assert caught.value.reason is Reason.SYMLINK_REFUSED
    assert said(server, guest, "ls /etc/authorized_keys 2>&1 | wc -l; stat -c %a /etc") == ["1", "755"]


def test_each_guest_has_a_machine_id_and_host_keys_of_its_own_and_keeps_them(server: Server, guest: vm_pb2.Vm) -> None:
    wanted = machine_id(guest.id)
    assert said(server, guest, "cat /etc/machine-id") == [wanted]
    brought = "mkdir -p /etc/ssh && cd /etc/ssh && touch ssh_host_rsa_key && echo image > ssh_host_ed25519_key"
    said(server, guest, f"{brought} && echo 0123456789abcdef0123456789abcdef > /etc/machine-id && sync")
    kept: list[list[str]] = []
    for _ in range(2):
        server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=guest.id))
        kept.append(said(server, guest, "cat /etc/machine-id; cd /etc/ssh && ls ssh_host* && cat ssh_host_ed25519_key"))
    assert kept[0] == kept[1]
    assert kept[0][:3] == [wanted, "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"]
    assert kept[0][3] == "-----BEGIN OPENSSH PRIVATE KEY-----"


def test_a_guest_becomes_another_one_and_itself_again(server: Server, guest: vm_pb2.Vm) -> None:
    """All that tells guests apart is another one's then, and what came by the former token is over."""
    shown = "hostname; cat /etc/machine-id /sys/class/net/eth0/address /etc/ssh/ssh_host_ed25519_key.pub; echo $WHO"
    draw = "for i in 1 2 3; do cat /proc/sys/kernel/random/uuid; done"
    said(
        server,
        guest,
        "mkdir -p /etc/ssh; cd /etc/ssh; test -e ssh_host_ed25519_key.pub || echo k >ssh_host_ed25519_key.pub",
    )
    itself = GuestIdentity(
        token=token_of(server, guest),
        hostname=guest.name,
        machine_id=machine_id(guest.id),
        networks=(replace(NETWORK, mac=user_mac(guest.id)),),
        env={},
    )
    other = GuestIdentity(
        token=os.urandom(32),
        hostname="another",
        machine_id="0123456789abcdef" * 2,
        networks=(replace(NETWORK, mac="52:54:00:00:00:99"),),
        announce=True,
        entropy=os.urandom(64),
        unix_nanoseconds=time.time_ns(),
        env={"WHO": "another"},
        disk_bytes=guest.disk_bytes,
    )

    async def output(agent: GuestChannel, script: str) -> list[str]:
        async with agent.exec(ExecSpec(("sh", "-c", script))) as command:
            events = [event async for event in command.events()]
        return b"".join(event.data for event in events if isinstance(event, Stdout)).decode().splitlines()

    async def become(by: Callable[[bytes], GuestChannel]) -> tuple[list[str], ...]:
        former, new = by(itself.token), by(other.token)
        before = await output(former, shown)
        for half in (replace(other, machine_id="none"), replace(other, networks=(replace(NETWORK, interface="eth7"),))):
            with pytest.raises(GuestError):
                await former.take_identity(half)
        assert await output(former, shown) == before
        async with former.exec(ExecSpec(("sleep", "1000"))) as command:
            taken = await by(itself.token).take_identity(replace(other, unix_nanoseconds=time.time_ns()))
            assert "10.0.2.15" in taken.announced_addresses
            with pytest.raises(GuestError):
                _ = [event async for event in command.events()]
        with pytest.raises(GuestError, match="token"):
            await former.ping()
        after, drawn = await output(new, shown), await output(new, draw)
        await new.take_identity(itself)
        return before, after, drawn, await output(former, shown)

    before, after, drawn, again = ask_by_tokens(server, guest, become)
    name, number, mac, key, who = after
    assert (name, number, mac, who) == ("another", other.machine_id, "52:54:00:00:00:99", "another")
    assert before[:3] == again[:3] == [guest.name, machine_id(guest.id), user_mac(guest.id)]
    assert before[4] == again[4] == ""
    assert len({before[3], key, again[3]}) == 3
    assert len(set(drawn)) == 3
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the network is whole: the guest reaches its host
        said(server, guest, f"bash -c 'exec 3<>/dev/tcp/10.0.2.2/{listener.getsockname()[1]}'")


def test_an_identity_that_fails_half_way_leaves_a_guest_that_answers_nothing_but_another_one(
    server: Server, guest: vm_pb2.Vm
) -> None:
    """Here for want of a disk as large as it is said to be."""
    token = token_of(server, guest)
    unfit = GuestIdentity(token=os.urandom(32), hostname="another", disk_bytes=2 * guest.disk_bytes)

    async def fail(by: Callable[[bytes], GuestChannel]) -> list[Reason]:
        former, reasons = by(token), []
        for question in (
            former.take_identity(unfit),
            former.ping(),
            former.take_identity(GuestIdentity(hostname="part")),
            by(unfit.token).ping(),
        ):
            with pytest.raises(GuestError) as caught:
                await question
            reasons.append(caught.value.reason)
        await former.take_identity(GuestIdentity(token=token, hostname=guest.name))
        await former.ping()
        return reasons

    pending = Reason.IDENTITY_PENDING
    assert ask_by_tokens(server, guest, fail) == [pending, pending, pending, Reason.GUEST_PROTOCOL]


def test_a_guest_comes_up_whatever_it_has_put_where_its_names_belong(server: Server, guest: vm_pb2.Vm) -> None:
    """Or nobody could ever mend it."""
    said(
        server,
        guest,
        "cd /etc; rm machine-id hostname; mkdir machine-id; mkfifo hostname hostname.ingle; : >resolv.conf;"
        " truncate -s 3G hosts",
    )
    server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=guest.id))
    assert said(server, guest, "hostname; cat /etc/hostname") == [guest.name] * 2
    console = b"".join(each.data for each in server.vms.StreamVmLogs(vm_pb2.StreamVmLogsRequest(vm=guest.id)))
    assert b"the guest goes without a machine-id of its own" in console

"""Networks that VMs share, with everything real: guests, taps, rules, names, and a world outside."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.inside.commands import User, lab_run
from slow import slow

WORLD, HOST = "192.0.2.1", "192.0.2.2"
SERVE = """
use IO::Socket::IP;
while (my ($address, $port) = splice @ARGV, 0, 2) {
  my $server = IO::Socket::IP->new(LocalHost => $address, LocalPort => $port, Listen => 5, ReuseAddr => 1) or die;
  next if fork;
  while (my $caller = $server->accept) { print $caller $caller->peerhost, "\\n"; close $caller }
}
"""
"""Servers, each at an address and a port: they tell each caller the address that they see."""

ASK = ("bash", "-c", 'exec 3<>"/dev/tcp/$0/$1" && read -r seen <&3 && echo "$seen"')
"""What such a server says; a host and a port follow. Perl would take seconds to begin in the lab's VMs."""


@pytest.fixture(scope="module")
def world() -> Iterator[None]:
    """A host beyond this one, in a namespace of its own, with a server on port 80. It knows no way to any VM."""
    lab_run("ip", "netns", "add", "world")
    lab_run("ip", "link", "add", "to-world", "type", "veth", "peer", "eth0", "netns", "world")
    for command in (
        ("ip", "address", "add", f"{HOST}/30", "dev", "to-world"),
        ("ip", "link", "set", "to-world", "up"),
        ("ip", "-n", "world", "address", "add", f"{WORLD}/30", "dev", "eth0"),
        ("ip", "-n", "world", "link", "set", "eth0", "up"),
        ("ip", "-n", "world", "link", "set", "lo", "up"),
    ):
        lab_run(*command)
    server = subprocess.Popen(
        ["ip", "netns", "exec", "world", "perl", "-e", SERVE.replace("next if fork;", ""), "0.0.0.0", "80"],
        stdin=subprocess.DEVNULL,
    )
    yield
    server.kill()
    server.wait()
    lab_run("ip", "netns", "delete", "world")


@contextmanager
def vm(user: User, name: str, *options: str) -> Iterator[str]:
    """A running VM; its address."""
    user.run("ingle", "vm", "create", "--name", name, *options)
    try:
        yield shown(user, name)["address"]
    finally:
        user.run("ingle", "vm", "delete", "--force", name)


def shown(user: User, name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(user.run("ingle", "vm", "show", name, "--json"))
    return told


def serve(user: User, name: str) -> None:
    """Have a VM serve port 80, and port 81 by IPv6."""
    user.run("ingle", "vm", "exec", name, "--", "perl", "-e", SERVE, "0.0.0.0", "80", "::", "81")


def ask(user: User, name: str, host: str, port: int, code: int = 0) -> str:
    """What the server says whom a VM asks."""
    return user.run("ingle", "vm", "exec", name, "--", *ASK, host, str(port), code=code).strip()


def test_vms_of_a_network_reach_each_other_by_name_and_no_other_network(member: User) -> None:
    with (
        vm(member, "one") as one,
        vm(member, "two") as two,
        vm(member, "apart", "--network", "backend") as apart,
    ):
        assert (shown(member, "one")["network"], shown(member, "apart")["network"]) == ("default", "backend")
        assert one.rpartition(".")[0] == two.rpartition(".")[0] != apart.rpartition(".")[0]
        for name in ("two", "apart"):
            serve(member, name)
        assert ask(member, "one", "two.vm", 80) == one
        assert ask(member, "one", apart, 80, code=1) == ""
        assert ask(member, "one", "apart.vm", 80, code=1) == ""
        resolve = ("ingle", "vm", "exec", "one", "--", "getent", "hosts")
        assert member.run("ingle", "vm", "exec", "one", "--", "getent", "ahostsv4", "two.vm").split()[0] == two
        assert member.run(*resolve, two).split() == [two, "two.vm"]
        member.run(*resolve, "apart.vm", code=2)
        one6, two6, apart6 = (shown(member, name)["address6"] for name in ("one", "two", "apart"))
        assert ask(member, "one", two6, 81) == one6
        assert ask(member, "one", apart6, 81, code=1) == ""
        for question in ("two.vm", two6):
            assert member.run(*resolve, question).split() == [two6, "two.vm"]


def test_nat_is_off_until_it_is_switched_on_and_can_be_switched_on_a_running_vm(member: User, world: None) -> None:
    with vm(member, "one"):
        assert ask(member, "one", WORLD, 80, code=1) == ""
        for _ in range(2):
            member.run("ingle", "vm", "update", "one", "--nat", "on")
        assert ask(member, "one", WORLD, 80) == HOST
        member.run("ingle", "vm", "restart", "one")
        assert ask(member, "one", WORLD, 80) == HOST
        member.run("ingle", "vm", "update", "one", "--nat", "off")
        assert ask(member, "one", WORLD, 80, code=1) == ""


@slow
def test_nat_from_the_start(member: User, world: None) -> None:
    out = member.run("ingle", "vm", "run", "--rm", "--nat", "--", *ASK, WORLD, "80")
    assert out.strip() == HOST


@slow
def test_a_published_port_is_reached_from_outside_while_the_vm_runs(member: User, world: None) -> None:
    ask_from_world = ("ip", "netns", "exec", "world", *ASK, HOST, "8080")
    with vm(member, "one", "--publish", "8080:80"):
        serve(member, "one")
        assert lab_run(*ask_from_world).strip() == WORLD
        said = member.run("ingle", "vm", "create", "--name", "late", "--publish", "8080:80", code=1)
        assert said == ""
        assert [each["name"] for each in json.loads(member.run("ingle", "vm", "list", "--json"))] == ["one"]
        member.run("ingle", "vm", "stop", "one")
        lab_run(*ask_from_world, code=1)


@slow
def test_a_restart_of_the_services_is_not_felt(member: User, world: None) -> None:
    with vm(member, "one", "--nat"), vm(member, "two") as two:
        serve(member, "two")
        lab_run("ingle", "system", "restart")
        assert ask(member, "one", WORLD, 80) == HOST
        assert ask(member, "one", "two.vm", 80) == shown(member, "one")["address"]
        assert shown(member, "two")["address"] == two


@slow
def test_the_host_knows_the_names(member: User) -> None:
    with vm(member, "one") as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        owner = str(shown(member, "one")["owner"]).encode()
        name = b"\x03one" + bytes([len(owner)]) + owner + b"\x02vm\x00"
        question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + name + b"\x00\x01\x00\x01"
        caller.settimeout(10)
        caller.sendto(question, ("127.0.0.1", 10053))
        assert caller.recv(512).endswith(socket.inet_aton(one))


@slow
def test_nothing_is_left_of_vms_that_are_gone(member: User) -> None:
    with vm(member, "one", "--nat", "--publish", "8080:80"), vm(member, "two", "--network", "backend"):
        assert lab_run("ip", "-brief", "link").count("ingb") == 2
    ours = [line for line in lab_run("ip", "-brief", "link").splitlines() if line.startswith("ingb")]
    assert ours == []
    ruleset = json.loads(lab_run("nft", "-j", "list", "ruleset"))
    sets = [item[kind] for item in ruleset["nftables"] for kind in ("set", "map") if kind in item]
    assert [each["name"] for each in sets if each["table"] == "ingle" and each.get("elem")] == []


@pytest.mark.parametrize(
    "attempt",
    [
        ("ip", "tuntap", "add", "mine", "mode", "tap"),
        ("ip", "link", "add", "mine", "type", "bridge"),
        ("nft", "add", "table", "inet", "mine"),
        ("/usr/sbin/dmsetup", "create", "mine", "--table", "0 8 zero"),
        ("cat", "/run/ingle-helper/journal"),
    ],
)
def test_the_servers_user_can_do_none_of_it_by_itself(member: User, attempt: tuple[str, ...]) -> None:
    ended = subprocess.run(["/usr/sbin/runuser", "-u", "ingle", "--", *attempt], capture_output=True, check=False)
    assert ended.returncode != 0


def test_a_second_user_can_not_ask_the_helper_nor_open_a_tap(member: User) -> None:
    knock = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/ingle-helper/helper.sock')"
    hello = "; s.sendall(b'PRI * HTTP/2.0'); print(len(s.recv(9)))"
    for user, complaint in (("dev", "PermissionError"), ("other", "")):  # other is in the group: the gate refuses it
        ended = subprocess.run(
            ["/usr/sbin/runuser", "-u", user, "--", "python3", "-c", knock + hello],
            capture_output=True,
            text=True,
            check=False,
        )
        assert complaint in ended.stderr
        assert ended.stdout.strip() in {"", "0"}
    with vm(member, "one"):
        (tap,) = (line.split()[0] for line in lab_run("ip", "-brief", "link").splitlines() if line.startswith("ingt"))
        take = f"""
import fcntl, os, struct
fcntl.ioctl(os.open("/dev/net/tun", os.O_RDWR), 0x400454CA, struct.pack("16sH22x", b"{tap}", 0x1002))
"""
        ended = subprocess.run(
            ["/usr/sbin/runuser", "-u", "dev", "--", "python3", "-c", take], capture_output=True, text=True, check=False
        )
        assert "PermissionError" in ended.stderr or "Operation not permitted" in ended.stderr

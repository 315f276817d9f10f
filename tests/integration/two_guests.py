"""Two VMs of one network and one of another, of a system install in namespaces of its own.

    python -m integration.two_guests PREPARED

An AssertionError unless the two reach each other by address and by name, with IPv4 and with IPv6, and not the third;
also one that sleeps, by its name, and at its published port from the host.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from integration.system_in_namespaces import HELPER, SERVER, Service, prepare

GATEWAY, PORT = "10.213.0.1", 8080

SERVE = """
use IO::Socket::IP;
my $server = IO::Socket::IP->new(LocalHost => "::", LocalPort => 80, Listen => 5, V6Only => 0) or die;
exit if fork;
while (my $caller = $server->accept) { print $caller $caller->peerhost, "\\n"; close $caller }
"""
"""It tells each caller the address that it sees."""

ASK = """
use IO::Socket::IP;
my $server = IO::Socket::IP->new(PeerHost => $ARGV[0], PeerPort => 80, Timeout => 5) or exit 1;
print scalar <$server>;
"""


def ingle(*argv: str, code: int = 0) -> str:
    """Run the command line; its exit code must be `code`."""
    ended = subprocess.run(
        [sys.executable, "-m", "ingle.cli", *argv],
        env={**os.environ, "INGLE_MODE": "system"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == code, f"{argv}: {ended}\n{Path('/run/log').read_text()[-4000:]}"
    return ended.stdout


def ask(name: str, host: str, code: int = 0) -> str:
    """What is served to a VM at `host`."""
    return ingle("vm", "exec", name, "--", "perl", "-e", ASK, host, code=code).strip()


def addresses(name: str) -> tuple[str, str]:
    """Of a VM: IPv4 and IPv6."""
    found: dict[str, Any] = json.loads(ingle("vm", "show", name, "--json"))
    return found["address"], found["address6"]


def served(host: str) -> str:
    """What is served to this host at `two`'s published port."""
    with socket.create_connection((host, PORT), 30) as connection:
        return connection.makefile().read().strip()


def state(name: str) -> str:
    """What the VM does."""
    return ingle("vm", "show", name, "--format", "{{.state}}").strip()


def main(prepared: Path) -> None:
    prepare(prepared)
    for service in (Service("/run/ingle-helper/helper.sock", HELPER), Service("/run/ingle/api.sock", SERVER)):
        service.wait_until_up()
    for name, network in (("one", "default"), ("two", "default"), ("apart", "backend")):
        ingle("vm", "create", "--name", name, "--network", network, *(("-p", f"{PORT}:80") if name == "two" else ()))
    one, two, apart = map(addresses, ("one", "two", "apart"))
    for name in ("two", "apart"):
        ingle("vm", "exec", name, "--", "perl", "-e", SERVE)
    for seen, host in ((f"::ffff:{one[0]}", two[0]), (one[1], two[1])):
        assert ask("one", host) == seen
    assert ask("one", "two.vm") in {f"::ffff:{one[0]}", one[1]}
    for host in (*apart, "apart.vm"):
        assert ask("one", host, code=1) == ""
    for address in two:
        resolved = ingle("vm", "exec", "one", "--", "getent", "hosts", address)
        assert resolved.split() == [address, "two.vm"]
    ingle("vm", "exec", "one", "--", "getent", "hosts", "apart.vm", code=2)
    for sleep in ("pause", "hibernate"):
        ingle("vm", sleep, "two")
        ingle("vm", "exec", "apart", "--", "getent", "hosts", "two.vm", code=2)
        assert state("two") == f"{sleep}d"
        assert ask("one", "two.vm") in {f"::ffff:{one[0]}", one[1]}
        assert state("two") == "running"
        for host in (GATEWAY, "127.0.0.1"):
            ingle("vm", sleep, "two")
            assert served(host)
            assert state("two") == "running"
    ingle("vm", "update", "two", "--no-wake-by-name")
    ingle("vm", "pause", "two")
    ingle("vm", "exec", "one", "--", "getent", "hosts", "two.vm")
    ingle("vm", "exec", "one", "--", "sleep", "0.5")
    assert state("two") == "paused"
    ingle("vm", "resume", "two")
    assert served(GATEWAY).startswith(f"::ffff:{GATEWAY}"), "and it is led there again, and not relayed"


if __name__ == "__main__":
    main(Path(sys.argv[1]))

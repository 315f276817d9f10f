"""A system install as its units run it, API server and network helper, in namespaces of its own: without systemd, and
nothing of the host's is seen or touched.

    python -m integration.system_in_namespaces PREPARED SEED KILLS CREATES

Kills both under load KILLS times, then gives up CREATES creates, each at another stage, and compares what there is with
what the store says after each kill and in the end. Prints counts as JSON; a difference is an AssertionError.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from busy import NAMES, Client, busy, give_up, spec
from ingle.v1 import vm_pb2
from lab.inside.exactly import what_the_store_says, what_there_is

SERVERS_USER = 23456
UP_SECONDS = 120.0
ABSENT = {"/run/ingle-helper-dm"}  # devices take device-mapper, which few machines have
POLICY = Path("/run/helper.toml")

HELPER = ["ingle.host_helper", "--policy", str(POLICY), "serve"]
SERVER = ["ingle.api_server", "serve", "--system"]


def prepare(prepared: Path) -> None:
    """File systems of our own where a system install keeps things, with kernel and image in them."""
    tun = os.stat("/dev/net/tun")
    for place in ("/run", "/var/lib", "/var/cache"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "ingle-test", place], check=True)
    for place in ("/run/ingle", "/run/ingle-helper", "/var/lib/ingle", "/var/cache/ingle"):
        Path(place).mkdir(mode=0o755)
    for kind, place in (("state", "/var/lib"), ("cache", "/var/cache")):
        subprocess.run(["cp", "-a", "--sparse=always", str(prepared / kind / "ingle"), place], check=True)
    os.mknod("/run/tun", 0o20666, tun.st_rdev)
    subprocess.run(["mount", "--bind", "/run/tun", "/dev/net/tun"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    POLICY.write_text(f'user = "{SERVERS_USER}"\n')
    POLICY.chmod(0o644)


class Service:
    """One process that is started again when it was killed, as its unit would have it."""

    def __init__(self, socket: str, module: list[str], python: Sequence[str] = (sys.executable, "-m")) -> None:
        self._socket = Path(socket)
        self._argv = [*python, *module]
        self.process = self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        with open("/run/log", "ab") as log:
            return subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self._socket.unlink(missing_ok=True)
        self.process = self._started()

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + UP_SECONDS
        while not self._socket.exists():
            assert self.process.poll() is None, Path("/run/log").read_text()[-4000:]
            assert time.monotonic() < deadline, Path("/run/log").read_text()[-4000:]
            time.sleep(0.02)


def check(said: list[dict[str, Any]]) -> None:
    """Exactly what the store says is there."""
    there_is, wanted = what_there_is(user="root"), what_the_store_says(said)
    for place in wanted.keys() - ABSENT:
        assert there_is[place] == wanted[place], (
            f"{place}: {there_is[place] - wanted[place]} is too much, {wanted[place] - there_is[place]} is missing"
            f"\n{said}\n{Path('/run/log').read_text()[-6000:]}"
        )


def killed(services: list[Service], chance: random.Random, done: "Counter[str]") -> list[dict[str, Any]]:
    """One round: load, both killed, both back. Answers what the store says then."""
    with busy(chance, done):
        time.sleep(chance.uniform(0.1, 6.0))
        for service in chance.sample(services, len(services)):
            service.kill()
            time.sleep(chance.choice((0.0, chance.uniform(0.0, 0.5))))
    for service in chance.sample(
        services, len(services)
    ):  # the server may be the first, and has to wait for the helper
        service.restart()
        time.sleep(chance.choice((0.0, 4.0)))
    for service in services:
        service.wait_until_up()
    with Client() as client:
        said = client.listed()
        check(said)
    return said


def main(prepared: Path, seed: int, kills: int, creates: int) -> None:
    prepare(prepared)
    chance = random.Random(seed)
    done: Counter[str] = Counter()
    services = [Service("/run/ingle-helper/helper.sock", HELPER), Service("/run/ingle/api.sock", SERVER)]
    for service in services:
        service.wait_until_up()
    with Client() as client:
        kept = client.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec(NAMES + 1))).vm
        check(client.listed())
    left: Counter[str] = Counter()
    for _ in range(kills):
        said = killed(services, chance, done)
        left.update(vm["state"] for vm in said)
        # One that nobody touched has not felt anything.
        assert [vm["boot_id"] for vm in said if vm["id"] == kept.id] == [kept.boot_id]
    with Client() as client:
        for vm in client.listed():
            client.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm["id"], force=True))
        check([])
        ends = give_up(client, creates)
        check([])
    for service in reversed(services):
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
    sys.stdout.write(json.dumps({"calls": done, "VMs after kills": left, "creates": ends}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))

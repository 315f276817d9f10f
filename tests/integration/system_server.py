"""A system install's API server, for tests that are about its guests: all in one network."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness import Server
from ingle.v1 import vm_pb2
from integration.system_in_namespaces import HELPER, SERVER, Service, prepare

ALONE = "INGLE_TESTS_ALONE"
"""Set where there is nothing of the host's: see test_system_mode.run_alone."""


class SystemServer(Server):
    """In the namespaces of `system_in_namespaces`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        super().__init__(Path("/run"), env)
        self.argv = [sys.executable, "-m", *SERVER]
        self.log = Path("/run/log")
        self.socket = Path("/run/ingle/api.sock")
        self.state = Path("/var/lib/ingle")


@contextmanager
def system_server(prepared: Path) -> Iterator[Server]:
    """One with its helper, which end as they should. It makes no memory by itself."""
    assert ALONE in os.environ, "it takes namespaces of its own"
    prepare(prepared)
    helper = Service("/run/ingle-helper/helper.sock", HELPER)
    helper.wait_until_up()
    server = SystemServer({"INGLE_WARM": "false"}).start()
    yield server
    for vm in server.list():
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
    assert server.stop() == 0, server.said()
    helper.process.send_signal(signal.SIGTERM)
    assert helper.process.wait(60) == 0, server.said()

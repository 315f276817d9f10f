"""A live server for the contract tests. No VM is started: what is tested here is what every call has in common."""

import os
import sys
from collections.abc import Iterator

import pytest

from harness import Server, no_process_left, running_server, server_directory
from ingle.v1 import vm_pb2
from unit.api_server.adapters.kernel import kernels
from uploading import image_upload, kernel_upload


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with server_directory() as root, running_server(root) as server:
        yield server


@pytest.fixture(scope="module")
def red_server() -> Iterator[Server]:
    """One of its own, that has VMs: their engine is a stand-in named red, with an image and a kernel for them."""
    with server_directory() as root:
        server = Server(root, {"PYTHONPATH": os.pathsep.join(sys.path)})
        server.argv = [sys.executable, "-m", "ingle.testing.serve", "qemu,red", "serve"]
        server.start()
        try:
            (root / "tree").mkdir()
            (root / "tree" / "file").write_text("all that an image needs")
            server.images.RegisterImage(image_upload("tiny", root / "tree"))
            server.kernels.ImportKernel(kernel_upload("made-up", kernels.VMLINUX))
            yield server
        finally:
            if server.process is not None and server.process.poll() is None:
                for vm in server.list():  # of a test that has failed
                    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
                assert server.stop() == 0, server.said()
            no_process_left(server)

"""Real microVMs. Kernel and image are made once a run; every server gets a copy of them in directories of its own."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import NewServer, Server, cloned_directory, exclusively, running_server, server_directory
from ingle.v1 import image_pb2, kernel_pb2, vm_pb2


@pytest.fixture(scope="session")
def prepared(pytestconfig: pytest.Config) -> Path:
    """A server's directories with the default kernel and image in them, and the KVM verdict known."""
    kept = Path(pytestconfig.getoption("prepared"))
    kept.mkdir(parents=True, exist_ok=True)
    with exclusively(kept / "lock"):
        if not (kept / "state").is_dir():
            _prepare(kept)
    return kept


def _prepare(kept: Path) -> None:
    with server_directory() as root:
        with running_server(root) as server:
            server.kernels.PullKernel(kernel_pb2.PullKernelRequest(name="debian"))
            server.images.PullImage(image_pb2.PullImageRequest(name="debian:bookworm"))
            vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
            server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
        for name in ("cache", "state"):  # what is looked for comes last
            shutil.rmtree(kept / name, ignore_errors=True)
            shutil.move(root / name, kept / name)


@pytest.fixture(scope="session")
def server(prepared: Path) -> Iterator[Server]:
    """One server for all tests that neither kill it nor care about what else is there."""
    with cloned_directory(prepared) as root, running_server(root) as server:
        yield server


@pytest.fixture
def new_server(prepared: Path) -> Iterator[NewServer]:
    """Servers of a test's own; each is stopped at the end, and must leave nothing behind."""
    with ExitStack() as stack:

        def make(env: dict[str, str] | None = None) -> Server:
            root = stack.enter_context(cloned_directory(prepared))
            return stack.enter_context(running_server(root, env))

        yield make


@pytest.fixture
def vm(server: Server) -> Iterator[vm_pb2.Vm]:
    """A running VM."""
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    yield vm
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


@pytest.fixture(scope="module")
def shared_vm(server: Server) -> Iterator[vm_pb2.Vm]:
    """A running VM for tests that leave it as it was."""
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    yield vm
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))

"""Real microVMs. Kernel and image are made once a run; every server gets a copy of them in directories of its own."""

import asyncio
import shutil
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import (
    NewServer,
    Server,
    cloned_directory,
    exclusively,
    running_server,
    server_directory,
    warm_cache,
)
from ingle.api_server.adapters.kernel import modules
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.host.files import sha256
from ingle.api_server.model.vm import Image, Kernel
from ingle.api_server.programs import agent_binary
from ingle.v1 import image_pb2, kernel_pb2, vm_pb2

from .engine_guests import QEMU, EngineKind, Guest, Guests, Saved, saved_of

_KEPT_MEMORIES = 16  # of several branches at a time, a hundred megabytes each
BEGIN_WARM = {"INGLE_WARM": "true", "INGLE_WARM_CACHE_BYTES": "0"}
"""VMs begin with the memory that is there, and none is made behind a test's back."""


@pytest.fixture(scope="session")
def prepared(pytestconfig: pytest.Config) -> Path:
    """A server's directories with the default kernel and image in them, and the KVM verdict known."""
    needed = zlib.crc32(" ".join((*modules.NEEDED, *modules.WELCOME)).encode())  # a kernel from before has others
    kept = Path(pytestconfig.getoption("prepared"), f"{needed:08x}")
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
def warm(prepared: Path) -> Path:
    """A directory with the memory that a VM begins with which asks for nothing else: most tests are about what comes
    after that."""
    kept = prepared / "warm" / sha256(agent_binary())[:12]  # an agent from before is another one
    with exclusively(prepared / "lock"):
        if not kept.is_dir():
            _warm(prepared, kept)
            for outdated in sorted(kept.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-_KEPT_MEMORIES]:
                shutil.rmtree(outdated)
    return kept


def _warm(prepared: Path, kept: Path) -> None:
    with cloned_directory(prepared) as root:
        with running_server(root) as server:
            server.images.WarmImage(image_pb2.WarmImageRequest())
        kept.parent.mkdir(exist_ok=True)
        made = shutil.move(warm_cache(root), kept.parent / f"{kept.name}.new")
        Path(made).rename(kept)


@pytest.fixture(scope="session")
def server(prepared: Path, warm: Path) -> Iterator[Server]:
    """One server for all tests that neither kill it nor care about what else is there."""
    with cloned_directory(prepared, warm) as root, running_server(root, BEGIN_WARM) as server:
        yield server


@pytest.fixture
def new_server(prepared: Path, warm: Path) -> Iterator[NewServer]:
    """Servers of a test's own; each is stopped at the end, and must leave nothing behind."""
    with ExitStack() as stack:

        def make(env: dict[str, str] | None = None) -> Server:
            root = stack.enter_context(cloned_directory(prepared, warm))
            return stack.enter_context(running_server(root, {**BEGIN_WARM, **(env or {})}))

        yield make


@pytest.fixture(scope="session")
def kind() -> EngineKind:
    """Of the engine that VMs are in."""
    return QEMU


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


@dataclass(frozen=True)
class Facts:
    """What a server has prepared."""

    kernel: Kernel
    image: Image


@pytest.fixture(scope="session")
def facts(prepared: Path) -> Facts:
    with cloned_directory(prepared) as root:

        async def read() -> Facts:
            async with SqliteStore(root / "state/ingle/ingle.db") as store:
                return Facts(await store.kernels.get("debian"), await store.images.get("debian:bookworm"))

        return asyncio.run(read())


@pytest.fixture
def guests(prepared: Path, facts: Facts, tmp_path: Path) -> Guests:
    """Guests of the engine's, without a server."""
    return Guests(tmp_path, prepared, facts.kernel, facts.image)


@pytest.fixture
async def source(guests: Guests) -> AsyncIterator[Guest]:
    """A guest in the middle of something."""
    async with guests.running(await guests.plan()) as guest:
        await guest.begin()
        yield guest


@pytest.fixture(scope="session")
def kept_once(prepared: Path, facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The memory of such a guest."""
    return asyncio.run(saved_of(Guests(tmp_path_factory.mktemp("kept"), prepared, facts.kernel, facts.image)))


@pytest.fixture
def kept(kept_once: Saved, tmp_path: Path) -> Saved:
    """The same, for a test to do with what it likes."""
    memory = tmp_path / "memory"
    shutil.copytree(kept_once.memory, memory)
    return Saved(memory, kept_once.disk)

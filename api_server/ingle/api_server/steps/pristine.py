"""Keep the memory of a guest that has booted and run nothing, and end it."""

import signal
from collections.abc import Mapping

from ingle.api_server.pipeline import Step
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.disk import BootMedia, DiskBackend
from ingle.api_server.ports.engine import Engine, Vmms, engine_of
from ingle.api_server.ports.guest import GuestDialler
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.sources import Library
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.ports.warm import WarmCache
from ingle.api_server.steps.attach_disk import AttachDisk, DiskBases
from ingle.api_server.steps.boot import Boot
from ingle.api_server.steps.initramfs import WriteInitramfs
from ingle.api_server.steps.launch import Launch
from ingle.api_server.steps.nowhere import ConnectNowhere, DisconnectNowhere
from ingle.api_server.steps.root_disk import RootDisk
from ingle.api_server.steps.runtime_directory import RuntimeDirectory
from ingle.api_server.steps.target import PristineStart, VmTarget
from ingle.api_server.steps.wait_for_agent import WaitForAgent

_TERM_SECONDS = 2.0


class PristineDirectory:
    """Everything of the guest is in there, and becomes an entry of the cache, or goes with it."""

    name = "pristine-directory"
    text = "making a directory in the cache"

    def __init__(self, cache: WarmCache, files: VmFiles) -> None:
        self._cache = cache
        self._files = files

    async def run(self, target: PristineStart) -> None:
        self._cache.make_directory(target.paths)

    async def undo(self, target: VmTarget) -> None:
        await self._files.remove_state(target.paths)


class GiveWay:
    """The VMs that people use come first, where nobody waits for this one."""

    name = "give-way"
    text = "leaving the processors to others"

    def needed(self, target: PristineStart) -> bool:
        """Whether that delays nobody."""
        return not target.waited

    async def run(self, target: PristineStart) -> None:
        target.live_vmm.give_way()


class SavePristine:
    """Nothing that a guest has written may be in its memory alone: its disk may also be booted from."""

    name = "save-pristine"
    text = "saving the guest's memory"

    def __init__(self, dialler: GuestDialler, cache: WarmCache) -> None:
        self._dialler = dialler
        self._cache = cache

    async def run(self, target: PristineStart) -> None:
        vmm = target.live_vmm
        await self._dialler.channel(vmm.agent).sync()
        await vmm.pause()
        await vmm.save(self._cache.memory(target.paths))


class EndPristine:
    """It is not needed any more. Launch's undo ends it otherwise."""

    name = "end-pristine"
    text = "ending the guest"

    def __init__(self, backends: Mapping[str, DiskBackend]) -> None:
        self._backends = backends

    async def run(self, target: PristineStart) -> None:
        vmm = target.live_vmm
        vmm.signal(signal.SIGTERM)
        if not await vmm.wait_gone(_TERM_SECONDS):
            vmm.signal(signal.SIGKILL)
            await vmm.wait_gone()
        await vmm.close()
        target.vmm = None
        await self._backends[target.vm.settings.disk_backend].detach(target.vm_id)


class SharePristine:
    """From now on those that begin with it have its pages together."""

    name = "share-pristine"
    text = "making the memory one that VMs share"

    def __init__(self, engines: Mapping[str, Engine], cache: WarmCache) -> None:
        self._engines = engines
        self._cache = cache

    async def run(self, target: PristineStart) -> None:
        await engine_of(target.vm, self._engines).share(target.vm, self._cache.memory(target.paths))


class PublishPristine:
    """The guest's directory becomes an entry of the cache."""

    name = "publish-pristine"
    text = "checking and publishing the memory"

    def __init__(self, files: VmFiles, backends: Mapping[str, DiskBackend], cache: WarmCache, clock: Clock) -> None:
        self._files = files
        self._backends = backends
        self._cache = cache
        self._clock = clock

    async def run(self, target: PristineStart) -> None:
        disk = self._backends[target.vm.settings.disk_backend].disk_path(target.paths.state)
        await self._files.remove_runtime(target.paths)
        target.kept = await self._cache.publish(target.machine, target.paths, disk, target.token, self._clock.now())


def pristine_steps(
    cache: WarmCache,
    files: VmFiles,
    vms: VmStore,
    engines: Mapping[str, Engine],
    vmms: Vmms,
    media: BootMedia,
    dialler: GuestDialler,
    images: Library,
    kernels: Library,
    backends: Mapping[str, DiskBackend],
    network: HostNetwork,
    bases: DiskBases,
    clock: Clock,
) -> tuple[Step[PristineStart], ...]:
    """A boot like that of any VM, and what keeps its memory: then there is an entry of the cache, and no guest."""
    return (
        PristineDirectory(cache, files),
        RootDisk(backends, images),
        RuntimeDirectory(files),
        ConnectNowhere(network),
        AttachDisk(backends, vms, bases),
        WriteInitramfs(media, engines),
        Launch(engines, vmms, kernels),
        GiveWay(),
        Boot(files),
        WaitForAgent(dialler, files),
        SavePristine(dialler, cache),
        EndPristine(backends),
        DisconnectNowhere(network),
        SharePristine(engines, cache),
        PublishPristine(files, backends, cache, clock),
    )

"""What a server that starts in a scripted world does first."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.memories import LocalMemories
from ingle.api_server.adapters.snapshot_files import LocalSnapshotFiles
from ingle.api_server.adapters.vm_files import LocalVmFiles
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.vm import LiveVmm
from ingle.api_server.operations.recover import Recovery
from unit.api_server.vmms import VM, World


class Found:
    """In place of what finds VMMs: they live until their engine says otherwise."""

    def __init__(self, engine: Any, lives: bool) -> None:
        self._lives = lives
        self.ending = getattr(engine, "ending", None)
        self.kill_all = getattr(engine, "kill_all", None)

    def lives(self, live: LiveVmm) -> bool:
        return self._lives


def recovery(
    at: World,
    root: Path,
    engine: object,
    *steps: object,
    engines: Collection[str] = (VM.settings.engine,),
    lives: bool = True,
) -> Recovery:
    """What a server that starts in this world does first."""
    library = DirectoryLibrary(root / "library", Tools(root))
    return Recovery(
        vms=at.store.vms,
        images=at.store.images,
        kernels=at.store.kernels,
        operations=at.store.operations,
        journal=at.store.journal,
        clock=at.clock,
        fleet=at.fleet,
        files=at.files,
        memories=LocalMemories(),
        pristine_files=LocalVmFiles(root / "pristine", root / "run-pristine"),
        engines=dict.fromkeys(engines, cast("Any", engine)),
        vmms=cast("Any", Found(engine, lives)),
        network=at.network,
        names=at.names,
        backends=at.backends,
        release=at.release,
        image_library=library,
        kernel_library=library,
        snapshots=at.store.snapshots,
        snapshot_files=LocalSnapshotFiles(root / "snapshots"),
        steps=cast("Any", steps),
    )

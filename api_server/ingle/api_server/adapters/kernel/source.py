"""KernelSource: makes what a guest boots, from Debian's packages or from files of the host."""

from pathlib import Path

from ingle.api_server.adapters.kernel import apt, bundle, catalog, disk, elf, image, modules
from ingle.api_server.host import files
from ingle.api_server.host.child import TooMuch, in_child, limited
from ingle.api_server.host.spool import spool
from ingle.api_server.host.threads import in_thread
from ingle.api_server.host.tool import Tools, require
from ingle.api_server.model.errors import BadFile, NotFound, Reason
from ingle.api_server.ports.sources import CatalogEntry, KernelFacts, Report, Upload

# Nobody knows how much a tool says of what a caller sent; 512 MiB are enough of it.
_INTO_FILE = 'ulimit -f 1048576; file=$1; shift; exec "$@" >"$file"'

_LARGEST = 4 << 30  # with all the modules that a distribution has


class KernelMaker:
    """Implements ports.sources.KernelSource."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def catalog(self) -> tuple[CatalogEntry, ...]:
        return tuple(kernel.entry for kernel in catalog.kernels().values())

    def needed_modules(self) -> tuple[str, ...]:
        return (*modules.NEEDED, *modules.WELCOME)

    async def pull(self, name: str, into: Path, report: Report) -> KernelFacts:
        known = catalog.kernels()
        if name not in known:
            raise NotFound(
                Reason.KERNEL_NOT_FOUND,
                f"the catalog has no kernel {name!r}; it has: {', '.join(known)}",
                "ingle kernel catalog",
            )
        scratch = _scratch(into)
        tree = await apt.download_kernel(self._tools, known[name].package, scratch, report)
        (kernel,) = tree.glob("boot/vmlinuz-*")
        # In lib up to bookworm, in usr/lib since.
        (tree_of_modules,) = [*tree.glob("lib/modules/*"), *tree.glob("usr/lib/modules/*")]
        facts = await self._make(kernel, tree_of_modules, into, scratch, report)
        await in_thread(files.remove_tree, scratch)
        return facts

    async def receive(self, kernel: Upload, into: Path, report: Report) -> KernelFacts:
        report("receiving the kernel", None)
        scratch = _scratch(into)
        sent, tree = scratch / "sent", scratch / "tree"
        await spool(kernel, sent, _LARGEST)
        try:
            if await in_thread(bundle.is_one, sent):
                report("reading the archive", None)
                await in_child(self._tools, bundle.unpack, sent, tree)
                facts = await self._make(tree / bundle.KERNEL, tree / bundle.MODULES, into, scratch, report)
            else:
                facts = await self._make(sent, None, into, scratch, report)
        except TooMuch:
            raise BadFile(Reason.KERNEL_INVALID, "the kernel can't be used: it takes too much to be read") from None
        await in_thread(files.remove_tree, scratch)
        return facts

    async def convert(self, kernel: Path, modules: Path, into: Path, report: Report) -> KernelFacts:
        """Take files of our own, for a machine with a /lib/modules of its own."""
        scratch = _scratch(into)
        facts = await self._make(kernel, modules, into, scratch, report, shared=False)
        await in_thread(files.remove_tree, scratch)
        return facts

    async def _make(
        self, kernel: Path, directory: Path | None, into: Path, scratch: Path, report: Report, *, shared: bool = True
    ) -> KernelFacts:
        """`shared`: with a disk of all modules, if the kernel can read one."""
        report("extracting the kernel", None)
        vmlinux, target = into / "vmlinux", into / "modules"
        release = await in_child(self._tools, unpack, kernel, vmlinux)
        if directory is None:
            target.mkdir()
            return KernelFacts(release, ())
        report("choosing modules", None)
        index = directory / "modules.dep"
        if not index.exists():
            index = await self._depmod(directory, release, scratch)
        later = scratch / "later"
        places = (target, later if shared else "")
        chosen = await in_child(self._tools, modules.install, index, directory, release, *places)
        names = tuple(chosen["early"])
        if not chosen["compression"]:
            return KernelFacts(release, names)
        report("packing all modules", None)
        path = into / disk.NAME
        count = await disk.make(self._tools, directory, later, release, chosen["compression"], scratch, path)
        return KernelFacts(release, names, count, path.stat().st_size)

    async def _depmod(self, directory: Path, release: str, scratch: Path) -> Path:
        """What would be in modules.dep, which packages leave to their installation; `directory` is left as it is."""
        base = scratch / "base"
        (base / "lib" / "modules").mkdir(parents=True)
        (base / "lib" / "modules" / release).symlink_to(directory)
        # Whether depmod looks in lib or in usr/lib depends on how it was built.
        (base / "usr").symlink_to(".")
        index = scratch / "modules.dep"
        into_index = [*limited("sh"), "-c", _INTO_FILE, "sh", str(index)]
        await self._tools.run([*into_index, require("depmod"), "--dry-run", "--basedir", base, release])
        return index


def unpack(kernel: str, vmlinux: str) -> str:
    """Write the vmlinux of a kernel file, and answer its release. For in_child."""
    image.extract(Path(kernel), Path(vmlinux))
    return elf.release_of(Path(vmlinux))


def _scratch(into: Path) -> Path:
    scratch = into / ".scratch"
    scratch.mkdir(mode=0o700)
    return scratch

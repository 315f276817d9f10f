"""KernelSource: makes what a guest boots, from Debian's packages or from files of the host."""

from pathlib import Path

from ingle.api_server.adapters.kernel import apt, elf, image, modules
from ingle.api_server.host import files
from ingle.api_server.host.threads import in_thread
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import BadFile, NotFound, Reason
from ingle.api_server.ports.sources import CatalogEntry, KernelFacts, Report

_DEBIAN = CatalogEntry("debian", "Debian's cloud kernel for the host's release, through the host's apt")


class Kernels:
    """Implements ports.sources.KernelSource."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def catalog(self) -> tuple[CatalogEntry, ...]:
        return (_DEBIAN,)

    async def pull(self, name: str, into: Path, report: Report) -> KernelFacts:
        if name != _DEBIAN.name:
            raise NotFound(
                Reason.KERNEL_NOT_FOUND,
                f"the catalog has no kernel {name!r}; it has: {_DEBIAN.name}",
                f"ingle kernel pull {_DEBIAN.name}",
            )
        scratch = _scratch(into)
        tree = await apt.download_kernel(self._tools, scratch, report)
        (kernel,) = tree.glob("boot/vmlinuz-*")
        # In lib up to bookworm, in usr/lib since.
        (tree_of_modules,) = [*tree.glob("lib/modules/*"), *tree.glob("usr/lib/modules/*")]
        facts = await self._make(kernel, tree_of_modules, into, scratch, report)
        await in_thread(files.remove_tree, scratch)
        return facts

    async def convert(self, kernel: Path, modules: Path | None, into: Path, report: Report) -> KernelFacts:
        directory = None if modules is None else _modules_directory(modules)
        scratch = _scratch(into)
        facts = await self._make(kernel, directory, into, scratch, report)
        await in_thread(files.remove_tree, scratch)
        return facts

    async def _make(
        self, kernel: Path, directory: Path | None, into: Path, scratch: Path, report: Report
    ) -> KernelFacts:
        report("extracting the kernel", None)
        vmlinux = into / "vmlinux"
        await in_thread(image.extract, kernel, vmlinux)
        release = await in_thread(elf.release_of, vmlinux)
        if directory is None:
            (into / "modules").mkdir()
            return KernelFacts(release, ())
        report("choosing modules", None)
        tree = await self._tree(directory, release, scratch)
        names = modules.load_order(tree)
        await in_thread(modules.save, directory, tree, names, release, into / "modules")
        return KernelFacts(release, tuple(names))

    async def _tree(self, directory: Path, release: str, scratch: Path) -> modules.Tree:
        dependencies = directory / "modules.dep"
        builtin = directory / "modules.builtin"
        return modules.read_tree(
            dependencies.read_text() if dependencies.exists() else await self._depmod(directory, release, scratch),
            builtin.read_text() if builtin.exists() else "",
        )

    async def _depmod(self, directory: Path, release: str, scratch: Path) -> str:
        """What would be in modules.dep, which packages leave to their installation; `directory` is left as it is."""
        base = scratch / "base"
        (base / "lib" / "modules").mkdir(parents=True)
        (base / "lib" / "modules" / release).symlink_to(directory)
        # Whether depmod looks in lib or in usr/lib depends on how it was built.
        (base / "usr").symlink_to(".")
        return (await self._tools.run(["depmod", "--dry-run", "--basedir", base, release])).decode()


def _scratch(into: Path) -> Path:
    scratch = into / ".scratch"
    scratch.mkdir(mode=0o700)
    return scratch


def _modules_directory(path: Path) -> Path:
    if not path.is_dir():
        raise BadFile(Reason.KERNEL_INVALID, f"{path} is not a directory; give a lib/modules/RELEASE directory")
    return path.absolute()

"""The lab's disk: a Debian with what the machines lack on which ingle is developed, and ingle's dependencies.

It is made once for each version of its recipe, which is the files named in RECIPE, and kept in the user's cache:
`disk.ext4`, and `vmlinux` and `modules/` of the kernel that is installed on it. Nothing of ingle itself is in there.
"""

import asyncio
import hashlib
import os
import shutil
import tarfile
import time
import tomllib
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import firecracker_release
from harness import exclusively
from ingle.api_server.adapters.kernel.source import KernelMaker
from ingle.api_server.adapters.rootfs import bootstrap
from ingle.api_server.adapters.rootfs.source import RootFileSystems
from ingle.api_server.host import rootlike
from ingle.api_server.host.tool import Tools, require
from lab import wheels

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
PACKAGE_LISTS = (REPOSITORY / "scripts/debian-packages.txt", HERE / "debian-packages.txt")
RECIPE = (
    *PACKAGE_LISTS,
    *(HERE / name for name in ("customize.sh", "disk.py", "firecracker.txt", "wheels.py")),
    REPOSITORY / "tests/firecracker_release.py",
)
_SUITE = "bookworm"
_TESTS = ("coverage", "hypothesis", "pytest", "pytest-asyncio", "pyyaml")
_UNUSED_DAYS = 7

Say = Callable[[str], None]


def cached(say: Say) -> Path:
    """The directory with the disk, made first if need be, which takes two to four minutes; `say` gets the progress.

    Raises HostProblem, ToolFailed, CalledProcessError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ingle-lab"
    cache.mkdir(parents=True, exist_ok=True)
    with exclusively(cache / "lock"):
        requirements = _requirements()
        directory = cache / _digest(requirements)
        if not directory.exists():
            _remove_unused(cache)
            asyncio.run(_make(cache, directory, requirements, say))
        os.utime(directory)
    return directory


def _requirements() -> dict[str, str]:
    """What pip is to install, by the name of the requirements file."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = {name: wanted for name, wanted in project["optional-dependencies"].items() if name != "dev"}
    wanted = {"ingle.txt": [*project["dependencies"], *chain(*extras.values())], "tests.txt": _TESTS}
    return {name: wheels.locked(wheels.closure(*packages)) for name, packages in wanted.items()}


def _digest(requirements: dict[str, str]) -> str:
    digest = hashlib.sha256()
    for path in RECIPE:
        digest.update(path.read_bytes() + b"\0")
    for text in requirements.values():
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


def _remove_unused(cache: Path) -> None:
    """Disks of other recipes that nobody has wanted for a while, and what a killed run left half made."""
    for path in cache.iterdir():
        outdated = time.time() - path.stat().st_mtime > _UNUSED_DAYS * 86400
        if path.name.startswith("new-") or (path.is_dir() and outdated):
            asyncio.run(rootlike.remove_tree(Tools(cache), path))


async def _make(cache: Path, directory: Path, requirements: dict[str, str], say: Say) -> None:
    new = cache / f"new-{directory.name}"
    inputs, scratch = new / "inputs", new / "scratch"
    for path in (inputs, scratch):
        path.mkdir(parents=True)
    tools = Tools(cache)
    say("fetching Python packages")
    await asyncio.to_thread(_gather, inputs, requirements)
    say("making the lab's Debian, and the image that VMs in it boot")
    guest, archive = scratch / "guest", scratch / "lab.tar"
    guest.mkdir()
    sources = RootFileSystems(tools)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sources.pull(f"debian:{_SUITE}", guest, lambda _, __: None))
        tasks.create_task(_bootstrap(tools, archive, inputs, scratch))
    say("making the lab's disk")
    with tarfile.open(archive, "a") as opened:
        opened.add(guest / "rootfs.ext4", "./opt/lab/debian.ext4")
    await sources.convert(archive, new, lambda _, __: None)
    (new / "rootfs.ext4").rename(new / "disk.ext4")
    await _take_kernel(tools, archive, new, scratch)
    for path in (inputs, scratch):
        await rootlike.remove_tree(tools, path)
    new.rename(directory)


def _gather(inputs: Path, requirements: dict[str, str]) -> None:
    """What the tree is customized with."""
    for name, text in requirements.items():
        (inputs / name).write_text(text)
        wheels.download(inputs / name, inputs / "wheels")
    firecracker_release.fetch(inputs)


async def _bootstrap(tools: Tools, archive: Path, inputs: Path, scratch: Path) -> None:
    prefix = await rootlike.namespace(tools)
    if prefix is None:
        raise RuntimeError(
            "the lab's disk is made as root, or by a user with ids in /etc/subuid and newuidmap installed"
        )
    command = [
        *(*prefix, "--", require("mmdebstrap"), "--mode=root", "--variant=minbase"),
        f"--include={','.join(_packages())}",
        "--skip=output/dev",
        f'--customize-hook={HERE / "customize.sh"} "$1" {inputs}',
        "--format=tar",
        *(_SUITE, str(archive), *await bootstrap._sources(tools, _SUITE)),
    ]
    await tools.run(command, env={"TMPDIR": str(scratch), **await bootstrap._proxies(tools)})


def _packages() -> list[str]:
    lines = [line.partition("#")[0].strip() for path in PACKAGE_LISTS for line in path.read_text().splitlines()]
    return sorted({line for line in lines if line})


async def _take_kernel(tools: Tools, archive: Path, into: Path, scratch: Path) -> None:
    """The kernel in the tree, so that the modules there fit it."""
    tree = scratch / "kernel"
    with tarfile.open(archive) as opened:
        members = (member for member in opened if member.name.startswith(("./boot/vmlinuz-", "./usr/lib/modules/")))
        opened.extractall(tree, members, filter="data")
    (kernel,) = tree.glob("boot/vmlinuz-*")
    (modules,) = tree.glob("usr/lib/modules/*")
    taken = scratch / "taken"
    taken.mkdir()
    await KernelMaker(tools).convert(kernel, modules, taken, lambda _, __: None)
    shutil.move(taken / "vmlinux", into / "vmlinux")
    shutil.move(taken / "modules", into / "modules")

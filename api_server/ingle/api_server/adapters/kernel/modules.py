"""Which kernel modules a guest needs before it has a root file system, and the order in which to load them.

Read from modules.dep and modules.builtin as depmod(8) and the kernel's build write them: one line a module, its file
relative to the directory, and for modules.dep the files it needs.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypedDict

from ingle.api_server.host import compression
from ingle.api_server.host.files import disk_full_reported
from ingle.api_server.model.errors import BadFile, Reason

NEEDED = ("virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "ext4")
"""The devices of both engines, the agent's port among them, and the root file system."""

WELCOME = ("vmw_vsock_virtio_transport", "crc32c_generic", "squashfs", "virtio_balloon", "virtio_rng")
"""Loaded where there are any: vsock to the agent; the checksum of ext4, which asks for it by a name that no dependency
tells; the file system of the disk with all modules; Firecracker's balloon, and its source of entropy."""

DISK = "squashfs"
"""What a kernel must know for that disk to be of any use."""

LATER = ("virtio_net", "virtio_balloon", "virtio_rng")
"""Of those, what is loaded from that disk, where there is one: so the initramfs does not grow by what reads it."""

_LARGEST = 64 << 20
_DEPENDENCIES = re.compile(r"^(\S+\.ko(?:\.\w+)?):(.*)$", re.MULTILINE)
_VERMAGIC = re.compile(rb"\0vermagic=([!-~]+)")


@dataclass(frozen=True, slots=True)
class Tree:
    """What a lib/modules/RELEASE directory says of itself: by module name, its file and the names that it needs."""

    paths: Mapping[str, str]
    needs: Mapping[str, tuple[str, ...]]
    builtin: frozenset[str]


class Chosen(TypedDict):
    """What a guest needs of a kernel's modules, by name and in load order."""

    early: list[str]
    """Of the initramfs."""
    later: list[str]
    """Of the disk with all modules."""
    compression: str
    """What that disk may be compressed by, as mksquashfs calls it; empty: the kernel can't read one."""


def install(index: str, directory: str, release: str, early: str, later: str) -> Chosen:
    """Save those that a guest needs of a lib/modules/RELEASE directory, in two others; `index` is its modules.dep.
    Without `later` there is to be no disk. For in_child. Raises BadFile(KERNEL_INVALID), HostProblem(DISK_FULL)."""
    builtin = Path(directory, "modules.builtin")
    tree = read_tree(
        Path(index).read_text("utf-8", "replace"), builtin.read_text("utf-8", "replace") if builtin.exists() else ""
    )
    order = load_order(tree)
    compression = _compression(Path(directory), tree) if later else ""
    at_first = set(load_order(tree, LATER)) if compression else set(order)
    chosen = Chosen(
        early=[name for name in order if name in at_first],
        later=[name for name in order if name not in at_first],
        compression=compression,
    )
    save(Path(directory), tree, chosen["early"], release, Path(early))
    if compression:
        save(Path(directory), tree, chosen["later"], release, Path(later))
    return chosen


def read_tree(dependencies: str, builtin: str) -> Tree:
    """Parse the texts of modules.dep and modules.builtin; other lines, as `depmod --dry-run` prints, are left out."""
    paths: dict[str, str] = {}
    needs: dict[str, tuple[str, ...]] = {}
    for path, needed in _DEPENDENCIES.findall(dependencies):
        if path.startswith("/") or "\0" in path or ".." in PurePosixPath(path).parts:
            raise _bad(f"its modules.dep leads out of its directory: {path[:100]!r}")
        name = name_of(path)
        paths[name] = path
        needs[name] = tuple(name_of(need) for need in needed.split())
    return Tree(paths, needs, frozenset(name_of(line) for line in builtin.splitlines()))


def name_of(path: str) -> str:
    """The module's name: its file's without suffixes, and with '_' for '-', which the kernel takes for the same."""
    return PurePosixPath(path.strip()).name.partition(".")[0].replace("-", "_")


def is_module(name: str) -> bool:
    """Whether a file of that name is one, compressed or not."""
    return ".ko" in PurePosixPath(name).suffixes


def load_order(tree: Tree, without: Collection[str] = ()) -> list[str]:
    """Names of the modules to load, each after all that it needs; what is built in is left out, and what nobody but
    those `without` needs.

    Raises BadFile(KERNEL_INVALID) when a needed one is neither there nor built in, or when they need each other."""
    for name in NEEDED:
        if name not in tree.paths and name not in tree.builtin:
            raise _bad(f"the module {name} is neither among its modules nor built in")
    order: dict[str, None] = {}
    for name in (*NEEDED, *WELCOME):
        if name in tree.paths and name not in without:
            _visit(tree, name, order, ())
    return list(order)


def _visit(tree: Tree, name: str, order: dict[str, None], trail: tuple[str, ...]) -> None:
    if name in order or name in tree.builtin:
        return
    if name in trail:
        raise _bad(f"its modules need each other: {' -> '.join((*trail, name))}")
    if name not in tree.paths:
        raise _bad(f"the module {name}, which {trail[-1]} needs, is missing")
    for need in tree.needs[name]:
        _visit(tree, need, order, (*trail, name))
    order[name] = None


def _compression(directory: Path, tree: Tree) -> str:
    """Every squashfs knows zlib. Which others one knows that is built in, nothing tells for sure."""
    if DISK not in tree.paths:
        return "gzip" if DISK in tree.builtin else ""
    return "zstd" if b"\0zstd\0" in _content(directory / tree.paths[DISK]) else "gzip"


def save(directory: Path, tree: Tree, names: Sequence[str], release: str, into: Path) -> None:
    """Write the modules, uncompressed, to the new directory `into` as NN-name.ko in the order of `names`.

    Raises BadFile(KERNEL_INVALID) for one that is corrupt or made for another kernel than `release`, and
    HostProblem(DISK_FULL)."""
    into.mkdir()
    with disk_full_reported(into):
        for number, name in enumerate(names):
            (into / f"{number:02}-{name}.ko").write_bytes(
                _checked(name, _content(directory / tree.paths[name]), release)
            )


def _checked(name: str, content: bytes, release: str) -> bytes:
    made_for = _VERMAGIC.search(content)
    found = "no kernel" if made_for is None else made_for[1].decode("ascii")
    if found != release:
        raise _bad(f"the module {name} is made for {found}, not for {release}")
    return content


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return b"".join(_limited(path, compression.decompressed(file)))
    except FileNotFoundError as error:
        raise _bad(f"the module {path} is missing") from error
    except (compression.Corrupt, compression.Unsupported) as error:
        raise _bad(f"the module {path}: {error}") from error
    except OSError as error:
        raise _bad(f"the module {path}: {error.strerror}") from error


def _limited(path: Path, chunks: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > _LARGEST:
            raise _bad(f"the module {path} has more than {_LARGEST >> 20} MiB")
        yield chunk


def _bad(why: str) -> BadFile:
    return BadFile(Reason.KERNEL_INVALID, f"the kernel can't be used: {why}")

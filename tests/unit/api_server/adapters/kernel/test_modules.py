"""Modules: which ones, in which order, from a lib/modules directory in whatever state it is."""

import gzip
import lzma
import re
from pathlib import Path

import pytest
import zstandard

from ingle.api_server.adapters.kernel import modules
from ingle.api_server.model.errors import BadFile, Reason
from unit.api_server.adapters.kernel.kernels import RELEASE

DEPENDENCIES = """
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko kernel/fs/mbcache.ko
kernel/fs/jbd2/jbd2.ko:
kernel/fs/mbcache.ko:
kernel/lib/crc16.ko:
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko \
kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/drivers/virtio/virtio-mmio.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/char/virtio_console.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/sound/soundcore.ko:
"""


def order(dependencies: str = DEPENDENCIES, builtin: str = "") -> list[str]:
    return modules.load_order(modules.read_tree(dependencies, builtin))


def test_each_module_comes_after_all_that_it_needs() -> None:
    names = order()
    tree = modules.read_tree(DEPENDENCIES, "")
    for position, name in enumerate(names):
        assert set(tree.needs[name]) <= set(names[:position])


def test_only_what_a_guest_needs_is_loaded_and_once() -> None:
    names = order()
    assert "soundcore" not in names
    assert len(names) == len(set(names))
    assert {"virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "ext4"} <= set(names)


def test_the_order_is_always_the_same() -> None:
    lines = DEPENDENCIES.strip().splitlines()
    assert order("\n".join(reversed(lines))) == order()


def test_what_is_built_in_is_neither_loaded_nor_missed() -> None:
    without_ext4 = re.sub(r"(?m)^kernel/fs.*\n", "", DEPENDENCIES)
    names = order(without_ext4, "kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio-ring.ko\n")
    assert "ext4" not in names
    assert "virtio_ring" not in names
    assert "virtio_blk" in names


def test_a_needed_module_that_is_nowhere_is_named() -> None:
    with pytest.raises(BadFile, match="the module virtio_blk is neither among its modules nor built in") as raised:
        order(re.sub(r"(?m)^kernel/drivers/block.*\n", "", DEPENDENCIES))
    assert raised.value.reason is Reason.KERNEL_INVALID


def test_a_missing_dependency_is_named_with_who_needs_it() -> None:
    with pytest.raises(BadFile, match="the module crc16, which ext4 needs, is missing"):
        order(re.sub(r"(?m)^kernel/lib/crc16.*\n", "", DEPENDENCIES))


def test_modules_that_need_each_other_are_refused() -> None:
    with pytest.raises(BadFile, match="need each other: virtio_mmio -> virtio_ring -> virtio -> virtio_ring"):
        order(DEPENDENCIES.replace("virtio_ring.ko:\n", "virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n"))


def test_lines_of_other_index_files_are_left_out() -> None:
    """As `depmod --dry-run` prints all of them, one after another."""
    assert order(DEPENDENCIES + "alias pci:v0000* ext4\nsymbol:crc16 crc16\nsoftdep ext4 pre: crc32c\n") == order()


def module(name: str, release: str = RELEASE) -> bytes:
    return f"\x7fELF\0name={name}\0vermagic={release} SMP preempt mod_unload \0".encode()


def saved(tmp_path: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """Save modules with these files, in this order, and read back what is there."""
    directory, into = tmp_path / "modules", tmp_path / "into"
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    tree = modules.read_tree("".join(f"{path}:\n" for path in files), "")
    modules.save(directory, tree, [modules.name_of(path) for path in files], RELEASE, into)
    return {path.name: path.read_bytes() for path in sorted(into.iterdir())}


def test_modules_are_saved_uncompressed_and_numbered_in_load_order(tmp_path: Path) -> None:
    files = {
        "kernel/z.ko": module("z"),
        "kernel/y-y.ko.xz": lzma.compress(module("y")),
        "kernel/x.ko.zst": zstandard.compress(module("x")),
        "kernel/a.ko.gz": gzip.compress(module("a")),
    }
    assert saved(tmp_path, files) == {
        "00-z.ko": module("z"),
        "01-y_y.ko": module("y"),
        "02-x.ko": module("x"),
        "03-a.ko": module("a"),
    }


def test_modules_of_another_kernel_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=f"the module a is made for 5.0.0-old, not for {RELEASE}"):
        saved(tmp_path, {"a.ko": module("a", "5.0.0-old")})


@pytest.mark.parametrize("content", [b"", lzma.compress(module("a"))[:-9], b"no module"])
def test_a_corrupt_module_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadFile, match="the module"):
        saved(tmp_path, {"a.ko.xz": content})


def test_a_module_that_is_listed_but_not_there_is_refused(tmp_path: Path) -> None:
    tree = modules.read_tree("kernel/a.ko:\n", "")
    with pytest.raises(BadFile, match="is missing"):
        modules.save(tmp_path, tree, ["a"], RELEASE, tmp_path / "into")

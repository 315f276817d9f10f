"""Importing a kernel: what is made, and that nothing but that is left."""

import gzip
from pathlib import Path

import pytest

from ingle.api_server.adapters.kernel import Kernels
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import BadFile, NotFound, Reason
from ingle.api_server.ports.sources import KernelFacts, KernelSource
from unit.kernel import kernels

NAMES = ("virtio_mmio", "virtio_blk", "virtio_net", "ext4")


def no_report(text: str, fraction: float | None) -> None:
    """Nobody listens."""


@pytest.fixture
def source(tools: Tools) -> KernelSource:
    return Kernels(tools)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    path = tmp_path / "into"
    path.mkdir()
    return path


def contents(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


def modules_directory(path: Path) -> Path:
    path.mkdir()
    for name in NAMES:
        (path / f"{name}.ko").write_bytes(f"\0vermagic={kernels.RELEASE} SMP\0".encode())
    (path / "modules.dep").write_text("".join(f"{name}.ko:\n" for name in NAMES))
    return path


async def test_a_kernel_alone_has_no_modules(source: KernelSource, into: Path, tmp_path: Path) -> None:
    kernel = tmp_path / "bzImage"
    kernel.write_bytes(kernels.bz_image(gzip.compress(kernels.VMLINUX)))
    assert await source.convert(kernel, None, into, no_report) == KernelFacts(kernels.RELEASE, ())
    assert contents(into) == ["vmlinux"]
    assert (into / "modules").is_dir()
    assert not (into / ".scratch").exists()


async def test_a_kernel_with_its_modules(source: KernelSource, into: Path, tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(kernels.VMLINUX)
    facts = await source.convert(kernel, modules_directory(tmp_path / "modules"), into, no_report)
    assert facts == KernelFacts(kernels.RELEASE, NAMES)
    assert contents(into) == [*(f"modules/{n:02}-{name}.ko" for n, name in enumerate(NAMES)), "vmlinux"]


async def test_a_modules_directory_that_is_none_is_refused(source: KernelSource, into: Path, tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(kernels.VMLINUX)
    with pytest.raises(BadFile, match="lib/modules/RELEASE") as raised:
        await source.convert(kernel, kernel, into, no_report)
    assert raised.value.reason is Reason.KERNEL_INVALID


async def test_a_name_the_catalog_lacks_is_told_with_those_it_has(source: KernelSource, into: Path) -> None:
    with pytest.raises(NotFound, match="it has: debian") as raised:
        await source.pull("plan9", into, no_report)
    assert raised.value.reason is Reason.KERNEL_NOT_FOUND
    assert [entry.name for entry in source.catalog()] == ["debian"]

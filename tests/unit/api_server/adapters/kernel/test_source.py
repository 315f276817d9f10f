"""Importing a kernel: what is made, and that nothing but that is left."""

import gzip
import io
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ingle.api_server.adapters.kernel import KernelMaker
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import BadFile, NotFound, Reason
from ingle.api_server.ports.sources import KernelFacts, KernelSource, Piece
from unit.api_server.adapters.kernel import kernels
from uploading import archive_of

NAMES = ("virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "ext4")


def no_report(text: str, fraction: float | None) -> None:
    """Nobody listens."""


async def receive(source: KernelSource, content: bytes, into: Path) -> KernelFacts:
    async def pieces() -> AsyncIterator[Piece]:
        yield Piece(0, content)

    return await source.receive(pieces(), into, no_report)


@pytest.fixture
def source(tools: Tools) -> KernelSource:
    return KernelMaker(tools)


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
    assert await receive(source, kernel.read_bytes(), into) == KernelFacts(kernels.RELEASE, ())
    assert contents(into) == ["vmlinux"]
    assert (into / "modules").is_dir()
    assert not (into / ".scratch").exists()


async def test_a_kernel_with_its_modules(source: KernelSource, into: Path, tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(kernels.VMLINUX)
    archive = archive_of({"kernel": kernel, "modules": modules_directory(tmp_path / "modules")})
    facts = await receive(source, archive, into)
    assert facts == KernelFacts(kernels.RELEASE, NAMES)
    assert contents(into) == [*(f"modules/{n:02}-{name}.ko" for n, name in enumerate(NAMES)), "vmlinux"]


async def refused(source: KernelSource, into: Path, sent: bytes) -> str:
    with pytest.raises(BadFile) as raised:
        await receive(source, sent, into)
    assert raised.value.reason is Reason.KERNEL_INVALID
    return raised.value.message


def sent_with(change: Callable[[tarfile.TarFile], None]) -> bytes:
    """A good archive, and something more."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        add(tar, "kernel", kernels.VMLINUX)
        for name in NAMES:
            add(tar, f"modules/{name}.ko", f"\0vermagic={kernels.RELEASE} SMP\0".encode())
        change(tar)
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, link
    tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("modules/modules.dep", tarfile.FIFOTYPE, ""),
        ("modules/modules.dep", tarfile.CHRTYPE, ""),
        ("modules/modules.dep", tarfile.SYMTYPE, "/etc/shadow"),
        ("modules/build", tarfile.SYMTYPE, "/usr/src/linux"),
    ],
)
async def test_what_is_no_regular_file_is_left_out(
    source: KernelSource, into: Path, name: str, kind: bytes, link: str
) -> None:
    """A FIFO would be read for ever. Without modules.dep, depmod tells what would be in it."""
    facts = await receive(source, sent_with(lambda tar: add(tar, name, kind=kind, link=link)), into)
    assert set(facts.modules) == set(NAMES)


@pytest.mark.parametrize("name", ["/modules/x.ko", "modules/../../x.ko", "modules/" + "d/" * 5000 + "x.ko"])
async def test_names_that_lead_elsewhere_are_refused(source: KernelSource, into: Path, name: str) -> None:
    assert "has the name" in await refused(source, into, sent_with(lambda tar: add(tar, name, b"x")))


@pytest.mark.parametrize("release", ["../../../../../outside", "-x", "/outside", "a/b"])
async def test_a_release_that_is_no_name_is_none(source: KernelSource, into: Path, release: str) -> None:
    """A file is called so, and it is part of commands."""
    kernel = kernels.elf(text=f"\0Linux version {release} (made@up) #1 SMP\n\0".encode())
    assert "not a Linux kernel" in await refused(source, into, kernel)


async def test_a_hard_link_is_the_same_file_once_more_and_leads_nowhere_else(
    source: KernelSource, into: Path, tmp_path: Path
) -> None:
    def linked(link: str) -> bytes:
        return sent_with(lambda tar: add(tar, "modules/x.ko", kind=tarfile.LNKTYPE, link=link))

    await receive(source, linked(f"modules/{NAMES[0]}.ko"), into)
    for number, link in enumerate(("../../../../etc/passwd", "/etc/passwd", "modules/none")):
        place = tmp_path / str(number)
        place.mkdir()
        assert "the archive" in await refused(source, place, linked(link))


@pytest.mark.parametrize("path", ["/etc/passwd.ko", "../../../../../etc/passwd.ko", "a/../../x.ko"])
async def test_an_index_that_leads_elsewhere_is_refused(source: KernelSource, into: Path, path: str) -> None:
    index = "".join(f"{name}.ko: {path}\n" for name in NAMES) + f"{path}:\n"
    sent = sent_with(lambda tar: add(tar, "modules/modules.dep", index.encode()))
    assert "leads out of its directory" in await refused(source, into, sent)


async def test_an_index_as_deep_as_nobody_has_it_is_refused(source: KernelSource, into: Path) -> None:
    chain = "".join(f"m{n}.ko: m{n + 1}.ko\n" for n in range(50_000)) + "virtio_mmio.ko: m0.ko\n"
    index = chain + "".join(f"{name}.ko:\n" for name in NAMES[1:])
    sent = sent_with(lambda tar: add(tar, "modules/modules.dep", index.encode()))
    assert "takes too much" in await refused(source, into, sent)


async def test_an_archive_without_a_kernel_is_refused(source: KernelSource, into: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        add(tar, "modules/modules.dep", b"")
    assert "no file 'kernel'" in await refused(source, into, buffer.getvalue())


async def test_a_name_the_catalog_lacks_is_told_with_those_it_has(source: KernelSource, into: Path) -> None:
    with pytest.raises(NotFound, match="it has: debian") as raised:
        await source.pull("plan9", into, no_report)
    assert raised.value.reason is Reason.KERNEL_NOT_FOUND
    assert [entry.name for entry in source.catalog()] == ["debian"]

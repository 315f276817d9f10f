"""Importing a kernel: what is made, and that nothing but that is left."""

import gzip
import io
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from ingle.api_server.adapters.kernel import KernelMaker
from ingle.api_server.host import tool
from ingle.api_server.host.tool import Tools, require
from ingle.api_server.model.errors import BadFile, HostProblem, NotFound, Reason
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


def module(name: str) -> bytes:
    """Enough of one for ingle. The kernel's squashfs knows zstd."""
    return f"\0vermagic={kernels.RELEASE} SMP\0zlib\0zstd\0 of {name}".encode()


def told_of(disk: Path) -> str:
    """What the tool says of it."""
    return subprocess.run(["unsquashfs", "-s", disk], check=True, capture_output=True, text=True).stdout


def listed(disk: Path) -> dict[str, str]:
    """What is on a disk: modes and owners, by name."""
    said = subprocess.run(["unsquashfs", "-lln", disk], check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in said.splitlines() if "squashfs-root/" in line]
    return {line[-1].removeprefix("squashfs-root/"): f"{line[0]} {line[1]}" for line in lines}


async def packed(source: KernelSource, into: Path, names: Sequence[str], more: Mapping[str, bytes]) -> KernelFacts:
    """A kernel with these modules, and files beside them."""
    index = "".join(f"kernel/{name}.ko:\n" for name in names).encode()
    files = {**{f"kernel/{name}.ko": module(name) for name in names}, "modules.dep": index, **more}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        add(tar, "kernel", kernels.VMLINUX)
        for name, content in files.items():
            add(tar, f"modules/{name}", content)
        add(tar, "modules/build", kind=tarfile.SYMTYPE, link="/usr/src/linux")
    return await receive(source, buffer.getvalue(), into)


async def test_all_modules_of_a_kernel_that_can_read_them_are_one_disk(source: KernelSource, into: Path) -> None:
    names = (*NAMES, "squashfs", "virtio_rng", "wireguard", "nft_nat")
    facts = await packed(source, into, names, {"modules.order": b"kernel/ext4.ko\n", "README": b"of no use"})
    assert (facts.disk_modules, facts.disk_bytes) == (len(names), (into / "modules.squashfs").stat().st_size)
    assert set(facts.modules) == {*NAMES, "squashfs"} - {"virtio_net"}
    assert contents(into)[-1] == "vmlinux"
    disk = listed(into / "modules.squashfs")
    files = {name for name, told in disk.items() if told.startswith("-")}
    assert {f"kernel/{name}.ko" for name in names} <= files
    assert {name for name in files if name.startswith("ingle/")} == {"ingle/00-virtio_net.ko", "ingle/01-virtio_rng.ko"}
    assert {"modules.dep.bin", "modules.alias.bin", "modules.order"} <= files
    assert not {"build", "README"} & set(disk)
    assert set(disk.values()) == {"-rw-r--r-- 0/0", "drwxr-xr-x 0/0"}


async def test_the_same_modules_make_the_same_disk(source: KernelSource, into: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    await packed(source, into, (*NAMES, "squashfs"), {})
    await packed(source, again, (*NAMES, "squashfs"), {})
    assert (into / "modules.squashfs").read_bytes() == (again / "modules.squashfs").read_bytes()


@pytest.mark.parametrize(
    ("change", "compression"),
    [({}, "zstd"), ({"kernel/squashfs.ko": module("squashfs").replace(b"zstd", b"none")}, "gzip")],
)
async def test_it_is_compressed_by_what_the_kernel_knows(
    source: KernelSource, into: Path, change: Mapping[str, bytes], compression: str
) -> None:
    await packed(source, into, (*NAMES, "squashfs"), change)
    assert f"Compression {compression}" in told_of(into / "modules.squashfs")


async def test_a_kernel_with_squashfs_built_in_has_a_disk_and_one_without_has_none(
    source: KernelSource, into: Path, tmp_path: Path
) -> None:
    assert (await packed(source, into, NAMES, {"modules.builtin": b"kernel/fs/squashfs.ko\n"})).disk_modules == 5
    without = tmp_path / "without"
    without.mkdir()
    assert await packed(source, without, NAMES, {}) == KernelFacts(kernels.RELEASE, NAMES, 0)
    assert not (without / "modules.squashfs").exists()


async def test_no_disk_without_the_program_that_makes_it(
    source: KernelSource, into: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for program in ("depmod", "prlimit", "setpriv", "sh"):
        (tmp_path / program).symlink_to(require(program))
    monkeypatch.setattr(tool, "search_path", lambda: str(tmp_path))
    with pytest.raises(HostProblem, match="mksquashfs") as raised:
        await packed(source, into, (*NAMES, "squashfs"), {})
    assert raised.value.remedy == "sudo apt install squashfs-tools"


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
    with pytest.raises(NotFound, match="it has: debian, debian-generic") as raised:
        await source.pull("plan9", into, no_report)
    assert raised.value.reason is Reason.KERNEL_NOT_FOUND
    assert [entry.name for entry in source.catalog()] == ["debian", "debian-generic"]
    assert all("the index that Debian signs" in entry.description for entry in source.catalog())

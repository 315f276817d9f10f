"""Debian's kernel through apt: the real apt, with a mirror of two small packages in a directory."""

import gzip
import subprocess
from pathlib import Path

import pytest

from ingle.api_server.adapters.kernel import KernelMaker
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import HostProblem, Reason, ToolFailed
from ingle.api_server.ports.sources import KernelFacts
from unit.api_server.adapters.kernel import kernels

META_PACKAGE = "linux-image-cloud-amd64"
PACKAGE = f"linux-image-{kernels.RELEASE}"
NAMES = ("virtio_mmio", "virtio_blk", "virtio_net", "virtio_console")


def no_report(text: str, fraction: float | None) -> None:
    """Nobody listens."""


@pytest.fixture
def into(tmp_path: Path) -> Path:
    path = tmp_path / "into"
    path.mkdir()
    return path


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose apt knows one mirror, a directory, and has no lists yet."""
    for name in ("mirror", "lists/partial", "archives/partial"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] copy:{tmp_path}/mirror ./\n")
    (tmp_path / "status").touch()
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list"; Dir::Etc::sourceparts "/nowhere";'
        f'Dir::State::lists "{tmp_path}/lists"; Dir::State::status "{tmp_path}/status"; Dir::Cache "{tmp_path}";'
        'APT::Sandbox::User "root"; APT::Architecture "amd64";'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return tmp_path


def build_package(host: Path, name: str, depends: str, tree: dict[str, bytes]) -> None:
    """Put a package into the mirror and its index."""
    root = host / name
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: a@example.org\nDescription: made up\n"
    (root / "DEBIAN" / "control").write_text(control + (f"Depends: {depends}\n" if depends else ""))
    for path, content in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    archive = host / "mirror" / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, archive], check=True, stdout=subprocess.DEVNULL)
    digest = subprocess.run(["sha256sum", archive], check=True, capture_output=True, text=True).stdout.split()[0]
    with open(host / "mirror" / "Packages", "a") as index:
        index.write((root / "DEBIAN" / "control").read_text())
        index.write(f"Filename: ./{name}.deb\nSize: {archive.stat().st_size}\nSHA256: {digest}\n\n")


def fill_mirror(host: Path, modules: str) -> None:
    build_package(host, META_PACKAGE, f"{PACKAGE} (= 1)", {})
    tree = {f"boot/vmlinuz-{kernels.RELEASE}": kernels.bz_image(gzip.compress(kernels.VMLINUX))}
    for name in NAMES:
        tree[f"{modules}/{kernels.RELEASE}/{name}.ko"] = f"\0vermagic={kernels.RELEASE} SMP\0".encode()
    tree[f"{modules}/{kernels.RELEASE}/modules.builtin"] = b"kernel/fs/ext4/ext4.ko\n"
    tree[f"{modules}/{kernels.RELEASE}/modules.dep"] = "".join(f"{name}.ko:\n" for name in NAMES).encode()
    build_package(host, PACKAGE, "", tree)


def update() -> None:
    subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)


@pytest.mark.parametrize("modules", ["lib/modules", "usr/lib/modules"])
async def test_the_kernel_behind_the_meta_package_is_taken(host: Path, into: Path, tools: Tools, modules: str) -> None:
    fill_mirror(host, modules)
    update()
    assert await KernelMaker(tools).pull("debian", into, no_report) == KernelFacts(kernels.RELEASE, NAMES)
    assert (into / "vmlinux").read_bytes() == kernels.VMLINUX
    assert sorted(path.name for path in into.iterdir()) == ["modules", "vmlinux"]


async def test_without_package_lists_the_remedy_is_to_get_them(host: Path, into: Path, tools: Tools) -> None:
    with pytest.raises(HostProblem, match=META_PACKAGE) as raised:
        await KernelMaker(tools).pull("debian", into, no_report)
    assert raised.value.reason is Reason.DEPENDENCY_MISSING
    assert raised.value.remedy == "sudo apt-get update"


async def test_with_outdated_package_lists_the_remedy_is_to_renew_them(host: Path, into: Path, tools: Tools) -> None:
    fill_mirror(host, "lib/modules")
    update()
    (host / "mirror" / f"{PACKAGE}.deb").unlink()
    with pytest.raises(ToolFailed, match="apt-get failed") as raised:
        await KernelMaker(tools).pull("debian", into, no_report)
    assert raised.value.remedy == "sudo apt-get update"


async def test_a_package_that_is_not_what_the_lists_say_is_refused(host: Path, into: Path, tools: Tools) -> None:
    fill_mirror(host, "lib/modules")
    update()
    archive = host / "mirror" / f"{PACKAGE}.deb"
    damaged = bytearray(archive.read_bytes())
    damaged[-1] ^= 0xFF
    archive.write_bytes(damaged)
    with pytest.raises(ToolFailed, match="Hash Sum mismatch"):
        await KernelMaker(tools).pull("debian", into, no_report)

"""Kernels and images made from Debian's packages, through this host's apt and its mirrors."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

from ingle.api_server.adapters.kernel import KernelMaker
from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.host.leftovers import kill_leftovers
from ingle.api_server.host.tool import Tools

MODULES = (
    "virtio_ring virtio virtio_mmio virtio_blk virtio_console squashfs "
    "vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport"
).split()
LATER = "failover net_failover virtio_net virtio_balloon".split()
WANTED = "wireguard nf_tables fuse overlay br_netfilter veth".split()


def names_on(disk: Path) -> list[str]:
    """Of the files on a squashfs."""
    listed = subprocess.run(["unsquashfs", "-l", disk], check=True, capture_output=True, text=True).stdout
    return [Path(line).name for line in listed.splitlines()]


async def test_debians_kernel_comes_out_bootable_with_its_modules_in_load_order(tmp_path: Path) -> None:
    told: list[tuple[str, float | None]] = []
    into = tmp_path / "kernel"
    into.mkdir()
    facts = await KernelMaker(Tools(tmp_path)).pull(
        "debian", into, lambda text, fraction: told.append((text, fraction))
    )
    vmlinux = (into / "vmlinux").read_bytes()
    assert vmlinux.startswith(b"\x7fELF")
    assert f"Linux version {facts.release} ".encode() in vmlinux
    assert set(MODULES) <= set(facts.modules)
    assert not set(LATER) & set(facts.modules)
    assert facts.modules.index("virtio_ring") < facts.modules.index("virtio_blk")
    assert facts.modules.index("vsock") < facts.modules.index("vmw_vsock_virtio_transport")
    saved = sorted(path.name for path in (into / "modules").iterdir())
    assert saved == [f"{number:02}-{name}.ko" for number, name in enumerate(facts.modules)]
    assert sorted(path.name for path in into.iterdir()) == ["modules", "modules.squashfs", "vmlinux"]
    names = names_on(into / "modules.squashfs")
    numbered = [name for name in names if re.match(r"\d\d-", name)]
    later = [name.removesuffix(".ko")[3:] for name in numbered]
    assert [name for name in later if name in LATER] == LATER
    assert {f"{name}.ko" for name in WANTED} <= set(names)
    assert facts.disk_modules == len([name for name in names if name.endswith(".ko")]) - len(numbered)
    # A third of what it holds, at most.
    assert (into / "modules.squashfs").stat().st_size < 40 << 20
    assert any(fraction == 1.0 for _, fraction in told)
    assert all(fraction is None or 0 <= fraction <= 1 for _, fraction in told)


PULL = """
import asyncio, sys
from pathlib import Path
from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.rootfs import RootFileSystems
from ingle.api_server.host.tool import Tools

async def main():
    root = Path(sys.argv[1])
    tools = Tools(root)
    async with DirectoryLibrary(root / "images", tools).workspace("op-1") as workspace:
        await RootFileSystems(tools).pull("debian:bookworm", workspace, lambda text, fraction: None)

asyncio.run(main())
"""


def mounts_below(path: Path) -> list[str]:
    listed = subprocess.run(["findmnt", "--json", "--list", "-o", "TARGET"], capture_output=True, check=True).stdout
    return [mount["target"] for mount in json.loads(listed)["filesystems"] if mount["target"].startswith(str(path))]


async def test_a_server_killed_while_it_makes_an_image_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    """Killed when packages are being installed: chroots, mounts, dozens of processes."""
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", PULL, str(tmp_path))
    work = tmp_path / "images" / ".work"
    while not any(work.glob("*/.scratch/mmdebstrap.*/var/lib/dpkg/info/libc6*")):
        assert server.returncode is None
        await asyncio.sleep(0.05)
    server.send_signal(signal.SIGKILL)
    await server.wait()
    tools = Tools(tmp_path)
    await kill_leftovers(tmp_path)
    await DirectoryLibrary(tmp_path / "images", tools).sweep(())
    assert list(work.iterdir()) == []
    assert mounts_below(tmp_path) == []
    assert await kill_leftovers(tmp_path) == 0

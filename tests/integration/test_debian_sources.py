"""Kernels and images made from Debian's packages, through this host's apt and its mirrors."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

from ingle.api_server.adapters.kernel import KernelMaker
from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.host.leftovers import kill_leftovers
from ingle.api_server.host.tool import Tools

MODULES = (
    "virtio_ring virtio virtio_mmio virtio_blk failover net_failover virtio_net virtio_console "
    "vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport"
).split()


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
    for needed, user in (("virtio_ring", "virtio_blk"), ("failover", "net_failover"), ("net_failover", "virtio_net")):
        assert facts.modules.index(needed) < facts.modules.index(user)
    assert facts.modules.index("vsock") < facts.modules.index("vmw_vsock_virtio_transport")
    saved = sorted(path.name for path in (into / "modules").iterdir())
    assert saved == [f"{number:02}-{name}.ko" for number, name in enumerate(facts.modules)]
    assert sorted(path.name for path in into.iterdir()) == ["modules", "vmlinux"]
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

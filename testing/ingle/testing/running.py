"""A whole server for a test: everything of ingle's but the machines."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from ingle.testing import keeper, made_up
from ingle.v1 import image_pb2, image_pb2_grpc, kernel_pb2, kernel_pb2_grpc
from ingle.v1.upload_pb2 import UploadEnd

_START_SECONDS = 30.0
_LOOK_SECONDS = 0.01

# What a VM has that asks for nothing else.
_IMAGE = "debian:bookworm"
_KERNEL = "debian"


@contextmanager
def server() -> Iterator[Path]:
    """A server of its own for the time of a `with`: answers its socket, `unix:SOCKET` for gRPC.

    It is the real one but for its only engine, "fake", whose VMs are ready within a fraction of a second: the guest of
    each is ingle's agent as an ordinary process. So commands and files in a guest are **this host's**, with the rights
    of who runs the test. There is an image and a kernel, empty ones, for VMs that ask for none. At the end all VMs are
    ended, and nothing is left, also when this process is killed.

    Raises RuntimeError, with what the server said, when it does not start or does not end well."""
    process = subprocess.Popen(
        # -P: what lies beside it is no module of its own.
        [sys.executable, "-P", keeper.__file__],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # modules are those of here
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the test, which then ends it
    )
    try:
        socket = _socket_of(process)
        _prepare(socket)
        yield socket
    except BaseException:
        process.communicate()
        raise
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"ingle's server did not end well:\n{said}")


def _socket_of(process: "subprocess.Popen[str]") -> Path:
    """Once it is there."""
    assert process.stdout is not None
    directory = process.stdout.readline().strip()
    socket = Path(directory, "run", "ingle", "api.sock")
    deadline = time.monotonic() + _START_SECONDS
    while not socket.exists():
        if not directory or process.poll() is not None or time.monotonic() > deadline:
            said, _ = process.communicate()
            raise RuntimeError(f"ingle's server does not start:\n{said}")
        time.sleep(_LOOK_SECONDS)
    return socket


def _prepare(socket: Path) -> None:
    """Send it an image and a kernel."""
    image, kernel = image_pb2.RegisterImageRequest, kernel_pb2.ImportKernelRequest
    images = (
        image(start=image_pb2.RegisterImageStart(name=_IMAGE, source="ingle.testing")),
        image(data=made_up.root_file_system()),
        image(end=UploadEnd()),
    )
    kernels = (
        kernel(start=kernel_pb2.ImportKernelStart(name=_KERNEL, source="ingle.testing")),
        kernel(data=made_up.VMLINUX),
        kernel(end=UploadEnd()),
    )
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        image_pb2_grpc.ImageServiceStub(channel).RegisterImage(iter(images), wait_for_ready=True)
        kernel_pb2_grpc.KernelServiceStub(channel).ImportKernel(iter(kernels))

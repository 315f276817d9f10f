"""One set of guests for each engine that can run here."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Client, Server, cloned_directory, running_server
from ingle.v1 import system_pb2
from integration.conftest import BEGIN_WARM, facts, guests, kept, kept_once, prepared, source, warm
from integration.system_server import ALONE, system_server

from .guests import World, echo_server, made

__all__ = ("facts", "guests", "kept", "kept_once", "prepared", "source", "warm")

ENGINES = {"qemu": "qemu-system-x86_64", "firecracker": "firecracker"}
"""By its name, the program that has to be there."""


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, prepared: Path) -> Iterator[Server]:
    """One whose VMs are each in a network of its own; in namespaces of ours, where all VMs share one."""
    if ALONE in os.environ:
        with system_server(prepared) as alone:
            yield alone
        return
    with cloned_directory(prepared, request.getfixturevalue("warm")) as root, running_server(root, BEGIN_WARM) as one:
        yield one


@pytest.fixture(scope="session", params=[name for name in ENGINES if shutil.which(ENGINES[name])])
def engine(request: pytest.FixtureRequest, server: Server) -> str:
    """One that can run here."""
    name: str = request.param
    (info,) = (each for each in server.system.GetInfo(system_pb2.GetInfoRequest()).engines if each.name == name)
    if info.problem:
        pytest.skip(f"{name}: {info.problem}")
    return name


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One that nobody else has issued, in PEM, and that is valid from now on."""
    directory: Path = tmp_path_factory.mktemp("certificate")
    request = ("openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "1", "-subj", "/CN=issued just now")
    subprocess.run([*request, "-keyout", directory / "key", "-out", directory / "pem"], check=True, capture_output=True)
    return (directory / "pem").read_text()


@pytest.fixture(scope="module")
def world(server: Client, engine: str, certificate: str) -> Iterator[World]:
    """Made once."""
    with echo_server() as port:
        yield made(server, engine, certificate, port)

"""Images of a registry in real guests: the examples of `ingle vm run --help` that name some, with a registry of our own
as docker.io's mirror."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from free_ports import free_port
from harness import Server, cloned_directory, running_server
from ingle.cli.app import app
from ingle.v1 import vm_pb2
from oci_registry import Entry, Registry, directory, layer, running_registry, symlink
from unit.cli.test_examples import examples

from .small_images import BUSYBOX
from .test_readme import Typed

PAGE = Path(__file__).parents[2] / "docs/images.md"
WARM = {"INGLE_WARM": "true", "INGLE_WARM_CACHE_BYTES": "1G", "INGLE_MEMORY_BYTES": "128M"}
APPLETS = ("cat", "echo", "env", "id", "ls", "pwd", "sh", "sleep", "test", "touch")
SERVES = """#!/bin/sh
trap 'echo "asked to end by SIGQUIT"; exit 0' QUIT
trap 'echo "asked to end by SIGTERM"; exit 0' TERM
echo "serves $1 to $GREETED as $(id -un) in $(pwd)"
touch /tmp/ready
echo "* Ready to accept connections tcp"
while :; do sleep 0.2; done
"""
CLIENT = """#!/bin/sh
test "$1" = ping && echo PONG || echo "redis-cli of $(id -un): $1"
"""
TREE = (
    *(directory(name) for name in ("bin", "etc", "root", "data", "home", "home/ember")),
    directory("tmp", 0o1777),
    Entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nember:x:1000:1000::/home/ember:/bin/sh\n"),
    Entry("etc/group", b"root:x:0:\nember:x:1000:\n"),
    *(symlink(f"bin/{name}", "busybox") for name in APPLETS),
)
REDIS = {
    "Entrypoint": ["/bin/serve"],
    "Cmd": ["whatever is asked"],
    "Env": ["GREETED=all"],
    "WorkingDir": "/data",
    "User": "ember",
    "ExposedPorts": {"6379/tcp": {}},
    "StopSignal": "SIGQUIT",
    "Healthcheck": {"Test": ["CMD", "/bin/test", "-e", "/tmp/ready"], "Interval": 1_000_000_000},
}


def program(name: str, text: str) -> Entry:
    return Entry(f"bin/{name}", text.encode(), mode=0o755)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    base = layer(*TREE, Entry("bin/busybox", Path(BUSYBOX).read_bytes(), mode=0o755))
    with running_registry(tmp_path_factory.mktemp("registry") / "hub") as registry:
        python = program("python3", "#!/bin/sh\necho $((6 * 7))\n")
        registry.push("library/python:3.12", [base, layer(python)], {"Cmd": ["python3"]})
        redis = layer(program("serve", SERVES), program("redis-cli", CLIENT))
        registry.push("library/redis:latest", [base, redis], REDIS)
        own = {"Entrypoint": ["/bin/echo", "hello"], "Cmd": ["from", "an", "image", "of", "my", "own"]}
        registry.push("hello:1", [base], own)
        yield registry


@pytest.fixture(scope="module")
def hub(prepared: Path, registry: Registry) -> Iterator[Server]:
    """A server that asks `registry` for what docker.io has."""
    with cloned_directory(prepared) as root:
        config = root / "config/ingle/config.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(f'[mirrors]\n"docker.io" = ["{registry.host}"]\n')
        with running_server(root, WARM) as server:
            yield server
            for vm in server.list():
                server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def typed(server: Server, line: str, directory: Path) -> str:
    """What it said on stdout, typed into a shell there."""
    ended = subprocess.run(
        ["bash", "-c", line],
        cwd=directory,
        env={
            **server.env,
            "PATH": f"{Path(sys.executable).parent}:{server.env['PATH']}",
            "INGLE_SOCKET": str(server.socket),
            "HOME": str(directory),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, f"{line}: {ended.stderr.decode()}"
    return ended.stdout.decode()


def example(text: str) -> str:
    """The one example of help that has this."""
    (found,) = {line for line in examples(get_command(app)) if text in line and line.startswith("ingle vm run")}
    return found


def eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def tour() -> list[Typed]:
    """What the page for newcomers has them type, and what that shows."""
    found: list[Typed] = []
    for block in re.findall(r"^```\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Typed(line[2:]))
            else:
                found[-1].shown.append(line)
    return found


def test_the_page_for_newcomers_can_be_typed(hub: Server, registry: Registry, tmp_path: Path) -> None:
    for typed_line in tour():
        command = typed_line.command.replace("localhost:5000", f"localhost:{registry.port}")
        said = typed(hub, command.replace("6379:", f"{free_port()}:"), tmp_path)
        assert said.splitlines() == typed_line.shown, command


def test_examples_of_help_can_be_typed(hub: Server, tmp_path: Path) -> None:
    """But for one that the page has as well."""
    assert typed(hub, example("--image python:3.12"), tmp_path) == "42\n"
    assert typed(hub, example("--entrypoint redis-cli"), tmp_path) == "redis-cli of ember: --version\n"


def test_what_an_image_is_to_run_runs_from_a_warm_memory_until_it_is_asked_to_end(hub: Server, tmp_path: Path) -> None:
    typed(hub, "ingle image warm redis", tmp_path)
    assert typed(hub, "ingle vm run -d --name warm --image redis", tmp_path) == "warm\n"
    assert hub.vms.GetVm(vm_pb2.GetVmRequest(vm="warm")).vm.boot_mode == vm_pb2.BOOT_MODE_WARM
    eventually(
        lambda: "serves whatever is asked to all as ember in /data" in typed(hub, "ingle vm logs warm", tmp_path)
    )
    assert typed(hub, "ingle vm exec warm -- sh -c 'echo $GREETED $(pwd) $(id -u)'", tmp_path) == "all /data 1000\n"
    assert typed(hub, "ingle vm exec -u root -w / warm -- sh -c 'echo $(pwd) $(id -u)'", tmp_path) == "/ 0\n"
    typed(hub, "ingle vm wait warm --for healthy --timeout 1m", tmp_path)
    assert "running, healthy" in typed(hub, "ingle ps --filter image=redis:latest", tmp_path)
    typed(hub, "ingle vm stop warm", tmp_path)
    assert "asked to end by SIGQUIT" in typed(hub, "ingle vm logs warm", tmp_path)

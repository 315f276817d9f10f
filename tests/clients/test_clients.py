"""Clients in other languages, generated from proto/ as docs/clients.md says, against a real server and a real VM."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.rpc import error_details_pb2

from harness import Server
from ingle.v1 import vm_pb2

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = (REPOSITORY / "docs/clients.md").read_text()
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ingle-clients"
_MAVENS_COLOUR = "\x1b[0m"  # whatever it is told
BUILD_SECONDS, RUN_SECONDS, GONE_SECONDS = 900, 60, 20


@dataclass(frozen=True)
class Language:
    """The heading of its commands in the document, the programs that it takes, and how its client is started."""

    heading: str
    programs: tuple[str, ...]
    client: tuple[str, ...]
    slow: bool = False  # its first build takes minutes

    @property
    def directory(self) -> Path:
        return Path(__file__).with_name(self.heading.lower().replace("#", "sharp"))

    @property
    def commands(self) -> str:
        found = re.search(rf"^### {self.heading}$.*?^```sh\n(.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
        assert found, self.heading
        return found[1]


LANGUAGES = (
    Language("Python", (), ("env", "PYTHONPATH=gen", sys.executable, "client.py")),
    Language("Go", ("go",), ("bin/client",)),
    Language("TypeScript", ("node", "npm"), ("node", "out/client.js")),
    Language("Java", ("java", "mvn"), ("mvn", "-q", "-B", "exec:java"), slow=True),
    Language("Rust", ("cargo",), (str(CACHE / "rust/debug/client"),), slow=True),
    Language("C#", ("dotnet",), ("dotnet", "run", "--no-build"), slow=True),
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A protoc that is nobody's but Google's, and compilers that keep what they made outside of the repository."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, command in ("protoc", "-m grpc_tools.protoc "), ("python", ""):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {command}"$@"\n')
        program.chmod(0o755)
    venv = Path(sys.executable).parent  # has a Go where the machine has none
    path = f"{programs}:{os.environ['PATH']}:{venv}"
    return {**os.environ, "PATH": path, "PROTOC": str(programs / "protoc"), "CARGO_TARGET_DIR": str(CACHE / "rust")}


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.heading)
def test_a_client_generated_from_the_tree_does_all_that_clients_do(
    language: Language,
    server: Server,
    shared_vm: vm_pb2.Vm,
    environment: dict[str, str],
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    for program in language.programs:
        if shutil.which(program, path=environment["PATH"]) is None:
            pytest.skip(f"this machine has no {program}")
    if language.slow and not pytestconfig.getoption("slow"):
        pytest.skip(f"the first build of {language.heading} takes minutes: --slow")
    build = tmp_path / "client"
    shutil.copytree(language.directory, build)
    (build / "proto").symlink_to(REPOSITORY / "proto")
    (build / "googleapis").symlink_to(Path(error_details_pb2.__file__).parents[2])

    compiled = subprocess.run(
        ["bash", "-euc", language.commands],
        cwd=build,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert compiled.returncode == 0, compiled.stdout[-3000:] + compiled.stderr[-3000:]
    arguments = [str(server.socket), shared_vm.id]
    if language.heading == "Java":
        arguments = [f"-Dexec.args={' '.join(arguments)}"]
    done = subprocess.run(
        [*language.client, *arguments],
        cwd=build,
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    name = language.directory.name
    op_id, *said = done.stdout.replace(_MAVENS_COLOUR, "").splitlines() or [""]
    assert re.fullmatch("op_id op-[0-9a-f]{12}", op_id), done.stdout + done.stderr
    assert said == [
        "exec HELLO 0",
        f"upload {len(name)}",
        "list true",
        "error NOT_FOUND ingle VM_NOT_FOUND true",
        "long INVALID_ARGUMENT ingle INVALID_ARGUMENT true",
        "cancelled CANCELLED",
    ], done.stderr
    assert done.returncode == 0, done.stderr
    assert server.run(shared_vm.id, "cat", f"/tmp/{name}")[1] == name.encode()
    _wait_until_gone(server, shared_vm.id, "sleep 98765")


def _wait_until_gone(server: Server, vm: str, command: str) -> None:
    """The command of the call that was cancelled is killed."""
    deadline = time.monotonic() + GONE_SECONDS
    while server.run(vm, "pgrep", "-f", command)[0] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)

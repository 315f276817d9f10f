"""An image of a Dockerfile, built in a VM, is run as the Dockerfile says. Making the builder takes minutes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness import NewServer, Server
from slow import slow

pytestmark = slow

DOCKERFILE = """
FROM scratch AS base
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-c"]
ARG GREETING=hello
RUN /bin/busybox mkdir -p /bin /tmp && /bin/busybox --install -s /bin && echo "$GREETING" >/greeting

FROM base
ENV COLOUR=green
WORKDIR /srv
COPY *ed /srv/
USER 1000
ENTRYPOINT ["/bin/sh", "-c", "cat /greeting; echo $COLOUR; pwd; ls; id -u"]
"""


def ingle(server: Server, directory: Path, *arguments: str, code: int = 0) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "ingle.cli", *arguments],
        cwd=directory,
        env={**server.env, "INGLE_SOCKET": str(server.socket), "GREETING": "from here"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=800,
        check=False,
    )
    assert ended.returncode == code, ended.stdout
    return ended.stdout


def test_what_a_dockerfile_says_is_what_runs(new_server: NewServer, tmp_path: Path) -> None:
    server = new_server()
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / ".dockerignore").write_text("ignored\n")
    (context / "ignored").touch()
    (context / "wanted").touch()
    ingle(server, tmp_path, "image", "build", "-t", "app:v1", "--build-arg", "GREETING", "context")
    said = ingle(server, tmp_path, "vm", "run", "--rm", "--image", "app:v1")
    assert said.splitlines()[-5:] == ["from here", "green", "/srv", "wanted", "1000"]
    # A stage, and another Dockerfile, whose directory is what it may copy from.
    os.rename(context / "Dockerfile", context / "Other")
    ingle(server, tmp_path, "image", "build", "-t", "app:base", "--target", "base", "context/Other")
    said = ingle(server, tmp_path, "vm", "run", "--rm", "--image", "app:base", "--", "/bin/cat", "/greeting")
    assert said.splitlines()[-1] == "hello"
    # One that fails leaves nothing.
    (context / "Other").write_text("FROM scratch\nRUN nothing\n")
    said = ingle(server, tmp_path, "image", "build", "-t", "app:none", "context/Other", code=1)
    assert "nothing was made of it" in said
    assert "app:none" not in ingle(server, tmp_path, "image", "list")
    assert server.list() == []

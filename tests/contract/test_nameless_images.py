"""An image whose name was given to another: it is listed as what it is, and prune removes it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from harness import Server
from ingle.v1 import image_pb2
from uploading import image_upload


def ingle(server: Server, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "ingle.cli", *arguments],
        env={**os.environ, "INGLE_SOCKET": str(server.socket)},
        capture_output=True,
        text=True,
        check=True,
    )


def register(server: Server, tree: Path, content: str) -> str:
    """The image's id."""
    (tree / "file").write_text(content)
    return server.images.RegisterImage(image_upload("again", tree)).image.id


def test_a_nameless_image_is_listed_as_such_and_pruned(server: Server, tmp_path: Path) -> None:
    old, new = register(server, tmp_path, "old"), register(server, tmp_path, "new")
    rows = [row.split() for row in ingle(server, "image", "list").stdout.splitlines()]
    assert ["<none>", old[:12]] in [row[:2] for row in rows]
    would = ingle(server, "image", "prune", "--dry-run")
    assert old[:12] in would.stdout
    assert new[:12] not in would.stdout
    assert would.stderr.startswith("would free ")
    pruned = json.loads(ingle(server, "image", "prune", "-f", "--json").stdout)
    assert [(image["id"], image["names"]) for image in pruned] == [(old, [])]
    assert [image.id for image in server.images.ListImages(image_pb2.ListImagesRequest()).images] == [new]
    server.images.DeleteImage(image_pb2.DeleteImageRequest(image="again"))
    assert json.loads(ingle(server, "kernel", "prune", "--json").stdout) == []

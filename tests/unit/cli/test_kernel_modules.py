"""What is sent of a kernel's modules."""

import os
from pathlib import Path

from ingle.cli.kernel_modules import modules_of


def test_all_modules_and_their_lists_are_sent_and_nothing_else(tmp_path: Path) -> None:
    sent = ["kernel/fs/ext4.ko.xz", "kernel/lib/crc16.ko", "modules.builtin", "modules.dep", "updates/dkms/x.ko.zst"]
    for name in (*sent, "System.map", "kernel/notes.txt", "kernel/modules.d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("content")
    (tmp_path / "build").symlink_to("/usr/src")
    os.mkfifo(tmp_path / "modules.order")
    os.mkfifo(tmp_path / "kernel" / "pipe.ko")
    assert modules_of(tmp_path) == [(tmp_path / name, f"modules/{name}") for name in sent]


def test_a_file_that_is_a_link_is_sent_as_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.ko").write_text("a module")
    tree = tmp_path / "modules"
    tree.mkdir()
    (tree / "ext4.ko").symlink_to("../elsewhere.ko")
    (tree / "none.ko").symlink_to("nowhere")
    assert modules_of(tree) == [(tmp_path / "elsewhere.ko", "modules/ext4.ko")]

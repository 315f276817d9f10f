"""What is sent of a kernel's modules."""

from pathlib import Path

from ingle.cli.kernel_modules import needed_of


def test_what_is_needed_is_sent_with_all_that_it_needs_and_nothing_else(tmp_path: Path) -> None:
    for name in ("fs/ext4.ko.xz", "lib/crc16.ko", "lib/mb-cache.ko", "sound/loud.ko"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a module")
    (tmp_path / "modules.builtin").write_text("kernel/fs/x.ko\n")
    (tmp_path / "modules.dep").write_text(
        "fs/ext4.ko.xz: lib/crc16.ko lib/mb-cache.ko\nlib/crc16.ko:\nlib/mb-cache.ko: lib/crc16.ko\nsound/loud.ko:\n"
    )
    sent = needed_of(tmp_path, ["ext4", "virtio_net"])
    names = ["fs/ext4.ko.xz", "lib/crc16.ko", "lib/mb-cache.ko", "modules.builtin", "modules.dep"]
    assert sorted(name for _, name in sent) == [f"modules/{name}" for name in names]
    assert all(path == tmp_path / name.removeprefix("modules/") for path, name in sent)


def test_a_file_that_is_a_link_is_sent_as_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.ko").write_text("a module")
    tree = tmp_path / "modules"
    tree.mkdir()
    (tree / "ext4.ko").symlink_to("../elsewhere.ko")
    (tree / "modules.dep").write_text("ext4.ko:\n")
    assert (tmp_path / "elsewhere.ko", "modules/ext4.ko") in needed_of(tree, ["ext4"])


def test_without_an_index_all_is_sent(tmp_path: Path) -> None:
    assert needed_of(tmp_path, ["ext4"]) == [(tmp_path, "modules")]

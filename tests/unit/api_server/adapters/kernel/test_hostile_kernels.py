"""Kernels, modules and archives of them that somebody made up: refused, or too much for the child that reads them."""

from contextlib import suppress
from pathlib import Path

from ingle.api_server.adapters.kernel import bundle, modules, source
from ingle.api_server.host.files import remove_tree
from ingle.api_server.model.errors import BadFile
from unit.api_server.adapters.kernel import kernels
from unit.fuzzing import mutations
from uploading import archive_of


def test_fuzz_kernels(tmp_path: Path) -> None:
    kernel, vmlinux = tmp_path / "kernel", tmp_path / "vmlinux"
    payloads = [compress(kernels.VMLINUX) for compress in kernels.PAYLOADS.values()]
    for data in mutations([kernels.VMLINUX, *payloads, *map(kernels.bz_image, payloads)]):
        kernel.write_bytes(data)
        with suppress(BadFile, MemoryError):
            source.unpack(str(kernel), str(vmlinux))
        vmlinux.unlink(missing_ok=True)


def test_fuzz_modules(tmp_path: Path) -> None:
    directory, into, index = tmp_path / "modules", tmp_path / "into", tmp_path / "index"
    later = tmp_path / "later"
    directory.mkdir()
    for name in modules.NEEDED:
        (directory / f"{name}.ko").write_bytes(f"\0vermagic={kernels.RELEASE} SMP\0".encode())
    lines = "".join(f"{name}.ko: {modules.NEEDED[0]}.ko\n" for name in modules.NEEDED[1:])
    for data in mutations([f"{lines}{modules.NEEDED[0]}.ko:\n".encode()]):
        index.write_bytes(data)
        (directory / "modules.builtin").write_bytes(data[::2])
        with suppress(BadFile, RecursionError):
            modules.install(str(index), str(directory), kernels.RELEASE, str(into), str(later))
        remove_tree(into)
        remove_tree(later)


def test_fuzz_archives_of_kernels(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "x.ko").write_bytes(b"x" * 700)
    (tmp_path / "tree" / "build").symlink_to("/usr/src")
    (tmp_path / "tree" / "modules.dep").write_text("x.ko:\n")
    seed = archive_of({"kernel": tmp_path / "tree" / "x.ko", "modules": tmp_path / "tree"})
    sent, into = tmp_path / "sent", tmp_path / "into"
    for data in mutations([seed]):
        sent.write_bytes(data)
        with suppress(BadFile, RecursionError, MemoryError):
            bundle.unpack(str(sent), str(into))
        assert all(path.is_dir() or (path.is_file() and not path.is_symlink()) for path in into.rglob("*"))
        remove_tree(into)
    assert {path.name for path in tmp_path.iterdir()} == {"sent", "tree"}

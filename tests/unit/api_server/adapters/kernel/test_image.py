"""Kernel files: every kind that is allowed comes out as the vmlinux inside, and all else is refused with a reason."""

import gzip
import stat
import struct
from pathlib import Path

import pytest

from ingle.api_server.adapters.kernel import elf, image
from ingle.api_server.model.errors import BadFile, Reason
from unit.api_server.adapters.kernel import kernels


def extracted(tmp_path: Path, content: bytes) -> bytes:
    """What comes out of a file with this content; a failure must leave nothing."""
    kernel, vmlinux = tmp_path / "kernel", tmp_path / "vmlinux"
    kernel.write_bytes(content)
    try:
        image.extract(kernel, vmlinux)
    except BadFile:
        assert not vmlinux.exists()
        raise
    return vmlinux.read_bytes()


def refused(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(BadFile) as raised:
        extracted(tmp_path, content)
    assert raised.value.reason is Reason.KERNEL_INVALID
    return raised.value.message


def test_a_vmlinux_is_taken_as_it_is(tmp_path: Path) -> None:
    assert extracted(tmp_path, kernels.VMLINUX) == kernels.VMLINUX
    assert stat.S_IMODE((tmp_path / "vmlinux").stat().st_mode) == 0o644


def test_a_compressed_vmlinux_is_decompressed(tmp_path: Path) -> None:
    assert extracted(tmp_path, gzip.compress(kernels.VMLINUX)) == kernels.VMLINUX


@pytest.mark.parametrize("compression", kernels.PAYLOADS)
def test_a_bzimage_gives_the_vmlinux_inside(tmp_path: Path, compression: str) -> None:
    payload = kernels.PAYLOADS[compression](kernels.VMLINUX)
    assert extracted(tmp_path, kernels.bz_image(payload)) == kernels.VMLINUX


def test_no_setup_sectors_means_four(tmp_path: Path) -> None:
    payload = gzip.compress(kernels.VMLINUX)
    assert extracted(tmp_path, kernels.bz_image(payload, setup_sectors=0)) == kernels.VMLINUX


@pytest.mark.parametrize("compression", kernels.PAYLOADS)
@pytest.mark.parametrize("left", [0x1F0, 0x205, 0x24B, 0x267, 5000, 15000])
def test_a_truncated_bzimage_is_refused(tmp_path: Path, compression: str, left: int) -> None:
    content = kernels.bz_image(kernels.PAYLOADS[compression](kernels.VMLINUX), before_payload=0x300)
    assert left < len(content) - 60
    refused(tmp_path, content[:left])


@pytest.mark.parametrize("compression", kernels.PAYLOADS)
def test_a_payload_of_another_size_than_it_says_is_refused(tmp_path: Path, compression: str) -> None:
    payload = kernels.PAYLOADS[compression](kernels.VMLINUX)[:-4] + struct.pack("<I", 1)
    message = refused(tmp_path, kernels.bz_image(payload))
    assert "corrupt" in message


def test_a_payload_that_no_kernel_has_is_refused(tmp_path: Path) -> None:
    assert "no compression that Linux uses" in refused(tmp_path, kernels.bz_image(bytes(1000)))


def test_lzo_is_refused_with_the_way_out(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(kernels.bz_image(b"\x89LZO\0\r\n\x1a\n" + bytes(1000)))
    with pytest.raises(BadFile, match="lzo") as raised:
        image.extract(kernel, tmp_path / "vmlinux")
    assert "extract-vmlinux" in raised.value.remedy


def test_a_boot_protocol_without_payload_offsets_is_refused(tmp_path: Path) -> None:
    content = kernels.bz_image(gzip.compress(kernels.VMLINUX), protocol=0x0207)
    assert "2.07 is too old" in refused(tmp_path, content)


@pytest.mark.parametrize("content", [b"", b"\x7f", b"text\n" * 1000, bytes(100_000), b"MZ" + bytes(600)])
def test_what_is_no_kernel_is_refused_with_what_is_allowed(tmp_path: Path, content: bytes) -> None:
    assert "a vmlinux, plain or compressed, or a bzImage" in refused(tmp_path, content)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "nothing", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(BadFile, match=why):
            image.extract(path, tmp_path / "vmlinux")


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "_LARGEST", 1 << 20)
    assert "more than 1 MiB" in refused(tmp_path, gzip.compress(bytes(8 << 20)))


def release(tmp_path: Path, content: bytes) -> str:
    vmlinux = tmp_path / "vmlinux"
    vmlinux.write_bytes(content)
    return elf.release_of(vmlinux)


def test_the_release_is_read_from_the_kernel(tmp_path: Path) -> None:
    assert release(tmp_path, kernels.VMLINUX) == kernels.RELEASE


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "too short"),
        (kernels.VMLINUX[:60], "too short"),
        (kernels.elf(ident=b"\x7fELF\1\1\1"), "not a 64-bit x86 ELF"),
        (kernels.elf(ident=b"\x7fELF\2\2\1"), "not a 64-bit x86 ELF"),
        (kernels.elf(machine=183), "not a 64-bit x86 ELF"),
        (kernels.elf(kind=1), "not a 64-bit x86 ELF"),
        (kernels.elf(notes=kernels.OTHER_NOTE), "CONFIG_PVH=y"),
        (kernels.elf(notes=b"\xff" * 64), "CONFIG_PVH=y"),
        (kernels.elf(text=b"some other program"), "not a Linux kernel"),
    ],
)
def test_an_elf_that_no_vmm_boots_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(BadFile, match=why) as raised:
        release(tmp_path, content)
    assert raised.value.reason is Reason.KERNEL_INVALID


@pytest.mark.parametrize("left", [64, 100, 176, 0x210, 0x1000, 0x2000, len(kernels.VMLINUX) - 1])
def test_a_truncated_vmlinux_is_refused_wherever_it_ends(tmp_path: Path, left: int) -> None:
    with pytest.raises(BadFile, match="truncated"):
        release(tmp_path, kernels.VMLINUX[:left])


def test_offsets_beyond_any_file_are_refused(tmp_path: Path) -> None:
    for at in (32, 40, 64 + 8, 64 + 32):  # program headers, section headers, a segment's offset and its size
        content = bytearray(kernels.VMLINUX)
        content[at : at + 8] = b"\xff" * 8
        with pytest.raises(BadFile, match="truncated"):
            release(tmp_path, bytes(content))

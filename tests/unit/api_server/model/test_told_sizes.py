"""Sizes and limits as people read them, and what they are told to type instead."""

import pytest
from typer.main import get_command

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.spec import GIB, MIB, Defaults, HostLimits, VmSpec, size_text
from ingle.cli.commands.vm.create import app

LIMITS = HostLimits(vcpus=4, memory_bytes=8 * GIB)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (17, "17 bytes"),
        (1536, "1.50 KiB"),
        (512 * MIB, "512 MiB"),
        (3 * GIB // 2, "1.50 GiB"),
        (989_560_464_998_400, "900 TiB"),
        (2**64 - 1, "16.00 EiB"),
    ],
)
def test_a_size_has_the_unit_that_fits(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        (VmSpec(vcpus=99), "--vcpu 4"),
        (VmSpec(vcpus=0), "--vcpu 1"),
        (VmSpec(memory_bytes=1 << 40), "--memory 8192M"),
        (VmSpec(memory_bytes=1), "--memory 64M"),
        (VmSpec(disk_bytes=1 << 60), "--disk-size 16T"),
    ],
)
def test_too_much_is_answered_with_the_most(spec: VmSpec, remedy: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        spec.check(LIMITS)
    assert refused.value.remedy == remedy


def test_too_little_memory_is_answered_with_what_the_kernel_boots_in() -> None:
    with pytest.raises(InvalidArgument) as refused:
        VmSpec(memory_bytes=1).check(LIMITS, 96 * MIB)
    assert refused.value.remedy == "--memory 96M"


def test_the_defaults_that_help_tells_are_the_servers() -> None:
    defaults = Defaults()
    told = {option.name: option.help for option in get_command(app).params}  # type: ignore[attr-defined]
    for name, value in (
        ("image", defaults.image),
        ("kernel", defaults.kernel),
        ("vcpu", str(defaults.vcpus)),
        ("memory", f"{defaults.memory_bytes // MIB}M"),
        ("disk_size", f"{defaults.disk_bytes // GIB}G"),
    ):
        assert f"{value} unless configured" in told[name], name

"""What tells one kind of processor from another."""

import pytest

from ingle.api_server.host.processor import kind, processor

_CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC 7B13
stepping\t: 0
cpu MHz\t\t: 2449.998
flags\t\t: fpu vme avx2
"""


def test_a_processor_is_told_by_what_does_not_change_from_boot_to_boot() -> None:
    assert kind(_CPUINFO).startswith("AuthenticAMD family 25 model 1 stepping 0 features ")
    assert kind(_CPUINFO) == kind(_CPUINFO.replace("2449.998", "2450.1").replace("fpu vme avx2", "avx2 fpu vme"))


@pytest.mark.parametrize(("old", "new"), [(": 25", ": 26"), (": 1", ": 2"), ("avx2", "avx2 avx512f"), ("AMD\n", "\n")])
def test_any_other_is_another(old: str, new: str) -> None:
    assert kind(_CPUINFO) != kind(_CPUINFO.replace(old, new))


def test_this_host_has_one() -> None:
    assert "unknown" not in processor()

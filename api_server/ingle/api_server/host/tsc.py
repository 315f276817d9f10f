"""The host's time stamp counter."""

import re
from functools import cache
from pathlib import Path


@cache
def tsc_khz() -> int:
    """How fast the host's TSC ticks, in kHz: what a guest under TCG sees.

    The kernel derives BogoMIPS from it (lpj = TSC ticks a jiffy), so half of BogoMIPS is MHz; see proc(5), cpuinfo.
    Returns 0 when the host does not tell."""
    found = re.search(r"bogomips\s*:\s*([\d.]+)", Path("/proc/cpuinfo").read_text())
    return int(float(found[1]) * 500) if found else 0

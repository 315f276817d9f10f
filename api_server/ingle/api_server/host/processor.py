"""What kind of processor the host has."""

import hashlib
import re
from functools import cache
from pathlib import Path

_TOLD = ("vendor_id", "cpu family", "model", "stepping", "flags")


@cache
def processor() -> str:
    """As `kind` has it, of this host's first one."""
    return kind(Path("/proc/cpuinfo").read_text())


def kind(cpuinfo: str) -> str:
    """Vendor, family, model and stepping, and a hash of what it can do: what a guest that has the host's processor
    relies on. `cpuinfo`: see proc(5)."""
    vendor, family, model, stepping, flags = (_field(name, cpuinfo) for name in _TOLD)
    features = hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:16]
    return f"{vendor} family {family} model {model} stepping {stepping} features {features}"


def _field(name: str, text: str) -> str:
    found = re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE)
    return found[1] if found else "unknown"

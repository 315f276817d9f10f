"""How much of the host's disk and network a VM may take in a second."""

from dataclasses import dataclass

from ingle.api_server.model.errors import InvalidArgument

UNLIMITED = 0
MOST = 2**49
"""Of all of them: beyond what any host does, and within what every engine takes."""


@dataclass(frozen=True, slots=True)
class DiskRates:
    """Of reads and writes together, on an average over a second; UNLIMITED: as much as the host does."""

    iops: int = UNLIMITED
    bytes_per_second: int = UNLIMITED


@dataclass(frozen=True, slots=True)
class _Rule:
    option: str
    least: int
    told: str
    why: str
    example: str


RULES = {
    "disk_iops": _Rule("--disk-iops", 100, "100", "with less a guest takes minutes to boot", "1000"),
    "disk_bytes_per_second": _Rule(
        "--disk-bandwidth", 1 << 20, "1 MiB", "with less a guest takes minutes to boot", "50M"
    ),
    "net_bytes_per_second": _Rule(
        "--net-bandwidth", 1 << 17, "128 KiB", "with less no segment of TCP's would ever pass", "10M"
    ),
}
"""By the name of the setting."""


def check_rate(value: int | None, field: str) -> None:
    """Raise InvalidArgument unless a VM can live with that of the setting `field`; UNLIMITED and None it can."""
    rule = RULES[field]
    if value is not None and value != UNLIMITED and not rule.least <= value <= MOST:
        unit = "" if field == "disk_iops" else " bytes"
        raise InvalidArgument(
            f"{field} {value}{unit} a second: {rule.told} at least is allowed ({rule.why}), or 0 for no limit"
            if value < rule.least
            else f"{field} {value}{unit} a second: {MOST} is the most, and 0 is no limit",
            f"{rule.option} {rule.example}, or {rule.option} none",
            field=field,
        )

"""Sizes, durations and ages: what people type, and what they read."""

import re
from datetime import UTC, datetime, timedelta

SIZE_RULE = (
    "a number of bytes, or a number with K, M, G or T (or KB, KiB and so on): powers of 1024, e.g. 512M, 2GB or 1.5GiB"
)
DURATION_RULE = "a number of seconds, or a number with ms, s, m or h, e.g. 30s or 1.5m"

_SIZE = re.compile(r"(\d+)(?:\.(\d+))?(?:([KMGT])(?:i?B)?|B)?", re.ASCII | re.IGNORECASE)
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", re.ASCII)
_SIZE_LIMIT = 1 << 64  # what a uint64 of the contract can't hold
_DURATION_LIMIT_SECONDS = 315_576_000_000  # google/protobuf/duration.proto: ten thousand years
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_UNIX = re.compile(r"\d{9,12}(\.\d+)?", re.ASCII)
_DAYS = re.compile(r"(\d+)d", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes. Raises ValueError that tells the allowed form, also for fractions of a byte. MB is MiB here, as it is in
    the server's configuration and in docker."""
    match = _SIZE.fullmatch(text)
    if match:
        whole, fraction, unit = match[1], match[2] or "", _SIZE_UNITS[(match[3] or "").upper()]
        scale = int("1" + "0" * len(fraction))
        size, remainder = divmod(int(whole + fraction) * unit, scale)
        if size >= _SIZE_LIMIT:
            raise ValueError(f"{text!r} is larger than any size can be")
        if not remainder or unit > 1:
            return size
    raise ValueError(f"{text!r} is not a size: give {SIZE_RULE}")


def parse_size_or_none(text: str) -> int:
    """The same, or "none", which is 0. Raises ValueError that tells the allowed form."""
    if text == "none":
        return 0
    try:
        return parse_size(text)
    except ValueError as error:
        raise ValueError(f"{error}, or none") from None


def format_size(size: int) -> str:
    """At most three digits before the unit, at most one after the point: 1.5G, 512M, 17."""
    value, unit = float(size), ""
    for larger in "KMGTP":
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f}{unit}" if value >= 100 or value == int(value) else f"{value:.1f}{unit}"


def parse_duration(text: str) -> timedelta:
    """Raises ValueError that tells the allowed form."""
    match = _DURATION.fullmatch(text)
    if match is not None:
        seconds = float(match[1]) * _DURATION_UNITS[match[2] or "s"]
        if seconds <= _DURATION_LIMIT_SECONDS:
            return timedelta(seconds=seconds)
    raise ValueError(f"{text!r} is not a duration: give {DURATION_RULE}")


def parse_duration_or_never(text: str) -> timedelta:
    """The same but 0, or "never", which is none. Raises ValueError that tells the allowed form."""
    if text == "never":
        return timedelta()
    try:
        parsed = parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, or never") from None
    if not parsed:
        raise ValueError(f"{text!r} is no time at all: give at least a second, or never")
    return parsed


_DEFAULT_TURN = 500


def parse_turn(text: str) -> int:
    """A place in an order, or "yes" for one in the middle of it, or "no". Raises ValueError that tells the allowed
    forms."""
    words = {"yes": _DEFAULT_TURN, "no": 0}
    if text not in words and not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 1000):
        raise ValueError(f"{text!r}: yes, no, or 1 to 1000 is allowed")
    return words[text] if text in words else int(text)


def parse_time(text: str) -> datetime:
    """A time, or a duration before now. Raises ValueError that tells the allowed forms."""
    if _UNIX.fullmatch(text):
        return datetime.fromtimestamp(float(text), UTC)
    days = _DAYS.fullmatch(text)
    try:
        return datetime.now(UTC) - parse_duration(f"{int(days[1]) * 24}h" if days else text)
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is neither a time such as 2026-11-29T21:30 (yours, or with Z or +01:00) nor a duration before "
            "now such as 90s, 10m, 2h or 7d"
        ) from None


def format_seconds(seconds: float) -> str:
    """0.12 s, 3.40 s; from a minute on 2m05s."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    return f"{int(seconds) // 60}m{int(seconds) % 60:02}s"


def parse_umask(text: str) -> int:
    """Octal digits. Raises ValueError that tells the allowed form."""
    if not re.fullmatch(r"[0-7]{1,4}", text, re.ASCII) or int(text, 8) > 0o777:
        raise ValueError(f"{text!r} is not a umask: give octal digits, at most 777, e.g. 027")
    return int(text, 8)


def format_age(since: datetime, now: datetime | None = None) -> str:
    """One unit is enough: 12s, 5m, 3h, 4d. `since` is aware."""
    seconds = max(0, int(((now or datetime.now(UTC)) - since).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"

"""Sizes, durations and ages."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.cli.quantities import format_age, format_seconds, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512M", 512 << 20),
        ("2GB", 2 << 30),
        ("17B", 17),
        ("2G", 2 << 30),
        ("1.5GiB", 3 << 29),
        ("1.5G", 3 << 29),
        ("8T", 8 << 40),
        ("0.5K", 512),
        ("512m", 512 << 20),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5", "2GBB", "1,5G", "2 G", "1e9", "٣", "0x10", "1..5G", "G2"])
def test_what_is_no_size_is_refused_with_the_allowed_form(text: str) -> None:
    with pytest.raises(ValueError, match="powers of 1024"):
        parse_size(text)


def test_a_size_that_no_field_can_hold_is_refused() -> None:
    assert parse_size("16777215T") < 1 << 64
    with pytest.raises(ValueError, match="larger"):
        parse_size("16777216T")


@given(st.integers(0, 1 << 40), st.sampled_from(["", "K", "M", "G", "KiB", "MiB", "GiB"]))
def test_whole_numbers_are_exact(number: int, unit: str) -> None:
    factor = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[unit.removesuffix("iB")]
    if number * factor < 1 << 64:
        assert parse_size(f"{number}{unit}") == number * factor


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_refusal(text: str) -> None:
    with suppress(ValueError):
        assert parse_size(text) >= 0


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1 << 20, "1M"),
        (1536 << 20, "1.5G"),
        (1000 << 20, "1.0G"),
        (8 << 30, "8G"),
        (123 << 20, "123M"),
    ],
)
def test_sizes_are_told_short(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, (1 << 60) - 1))
def test_a_told_size_is_at_most_five_characters_and_nearly_right(size: int) -> None:
    text = format_size(size)
    assert len(text) <= 5
    value = float(text.rstrip("KMGTPE")) * 1024 ** (" KMGTPE".index(text[-1]) if text[-1].isalpha() else 0)
    assert value == pytest.approx(size, rel=0.06)


@pytest.mark.parametrize(
    ("text", "seconds"), [("5", 5), ("0.5", 0.5), ("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("2h", 7200)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "-1s", "soon", "1d", "5 s", "s", "9" * 30 + "h"])
def test_what_is_no_duration_is_refused_with_the_allowed_form(text: str) -> None:
    with pytest.raises(ValueError, match="30s"):
        parse_duration(text)


def test_seconds_and_ages() -> None:
    assert [format_seconds(seconds) for seconds in (0.004, 3.4, 125)] == ["0.00 s", "3.40 s", "2m05s"]
    now = datetime(2026, 1, 31, tzinfo=UTC)
    ages = [timedelta(0), timedelta(seconds=59), timedelta(minutes=5), timedelta(hours=23), timedelta(days=400)]
    assert [format_age(now - age, now) for age in ages] == ["0s", "59s", "5m", "23h", "400d"]
    assert format_age(now + timedelta(seconds=5), now) == "0s", "clocks differ"

"""Healthchecks: what is asked, and what the answers come to."""

from datetime import UTC, datetime

import pytest

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.healthcheck import (
    NO_HEALTHCHECK,
    Checked,
    HealthStatus,
    VmHealth,
    check_healthcheck,
    command_of,
    settled,
)
from ingle.api_server.model.image_config import Healthcheck

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WELL, UNWELL = Checked(NOW, 0, ""), Checked(NOW, 1, "no")
OF_IMAGE = Healthcheck(("CMD", "curl", "localhost"), interval=5000, retries=2)
CHECK = settled(None, OF_IMAGE)


def test_what_nobody_says_is_as_docker_has_it() -> None:
    assert Healthcheck(OF_IMAGE.test, interval=5000, timeout=30_000, start_period=0, retries=2) == CHECK
    assert command_of(CHECK) == ("curl", "localhost")
    assert settled(Healthcheck((), timeout=2000), OF_IMAGE).timeout == 2000
    other = settled(Healthcheck(("CMD-SHELL", "true")), OF_IMAGE)
    assert (command_of(other), other.interval) == (("/bin/sh", "-c", "true"), 5000)


@pytest.mark.parametrize("test", [("NONE",), (), ("CMD",), ("CMD-SHELL",), ("CMD", ""), ("WHATEVER", "x")])
def test_an_image_that_asks_for_nothing_is_asked_nothing(test: tuple[str, ...]) -> None:
    assert settled(None, Healthcheck(test)) == NO_HEALTHCHECK


def test_nothing_is_asked_where_nobody_wants_it() -> None:
    assert settled(Healthcheck(("NONE",)), OF_IMAGE) == NO_HEALTHCHECK
    assert settled(Healthcheck((), interval=1000), None) == NO_HEALTHCHECK


def test_what_an_image_says_beyond_bounds_is_the_nearest_that_is_allowed() -> None:
    wild = settled(None, Healthcheck(("CMD", "x"), interval=1, timeout=10**12, start_period=-1, retries=10**9))
    assert (wild.interval, wild.timeout, wild.start_period, wild.retries) == (1000, 3_600_000, 0, 100)


@pytest.mark.parametrize(
    "wish",
    [
        Healthcheck(("CMD",)),
        Healthcheck(("CMD-SHELL", "a", "b")),
        Healthcheck(("curl", "localhost")),
        Healthcheck(("NONE", "x")),
        Healthcheck(("CMD", "a\0b")),
        Healthcheck(("CMD", "x" * 17_000)),
        Healthcheck((), interval=999),
        Healthcheck((), timeout=3_600_001),
        Healthcheck((), start_period=-1),
        Healthcheck((), retries=101),
    ],
)
def test_a_wish_that_cannot_be_is_refused(wish: Healthcheck) -> None:
    with pytest.raises(InvalidArgument, match="healthcheck"):
        check_healthcheck(wish)


def test_so_many_failures_in_a_row_make_it_unhealthy_and_one_success_well() -> None:
    health = VmHealth()
    seen = []
    for checked in (UNWELL, UNWELL, WELL, UNWELL, WELL, UNWELL, UNWELL):
        health = health.after(checked, CHECK, starts=False)
        seen.append(health.status)
    starting, healthy, unhealthy = HealthStatus
    assert seen == [starting, unhealthy, healthy, healthy, healthy, healthy, unhealthy]
    assert (health.failures, health.last) == (2, UNWELL)


def test_failures_while_it_starts_do_not_count_until_it_was_well() -> None:
    health = VmHealth()
    for _ in range(5):
        health = health.after(UNWELL, CHECK, starts=True)
    assert (health.status, health.failures, health.last) == (HealthStatus.STARTING, 0, UNWELL)
    health = health.after(WELL, CHECK, starts=True).after(UNWELL, CHECK, starts=True)
    assert (health.status, health.failures) == (HealthStatus.HEALTHY, 1)

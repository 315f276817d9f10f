"""The root helper's policy as an install writes it, and leaves it."""

from pathlib import Path

import pytest

from ingle.cli.system import installation
from ingle.cli.system.files import default_policy
from ingle.cli.system.installation import planned_policy
from ingle.cli.system.pools import Pools

POOLS = Pools("10.20.0.0/16", "", ("why the one", "why the other"))


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it would be; pools are chosen at once, and VMs have none of them."""
    path = tmp_path / "etc/helper.toml"
    monkeypatch.setattr(installation, "POLICY", path)
    monkeypatch.setattr(installation, "choose_pools", lambda prefix, asked: POOLS)
    monkeypatch.setattr(installation, "check_unused", lambda helper: None)
    return path


def test_where_there_is_no_policy_one_is_written_with_the_pools_that_were_chosen_and_why(policy: Path) -> None:
    said: list[str] = []
    assert planned_policy(Path("/opt/ingle")).write(said.append)
    lines = policy.read_text().splitlines()
    assert lines[:-2] == default_policy().splitlines()
    assert lines[-2:] == ['ipv4_pool = "10.20.0.0/16"', 'ipv6_pool = ""']
    assert said == [f"writing {policy}", "addresses of VMs: why the one", "addresses of VMs: why the other"]
    assert policy.stat().st_mode & 0o777 == 0o644


def test_what_is_there_stays_until_other_pools_are_asked_for_and_then_all_else_stays(policy: Path) -> None:
    policy.parent.mkdir()
    policy.write_text('user = "ingle"\nipv4_pool = "10.30.0.0/16" # ours\nmax_taps = 7\n')
    assert not planned_policy(Path("/opt/ingle")).write(pytest.fail)
    assert planned_policy(Path("/opt/ingle"), ["10.20.0.0/16"]).write(lambda _: None)
    text = 'user = "ingle"\nipv4_pool = "10.20.0.0/16"\nmax_taps = 7\nipv6_pool = ""\n'
    assert policy.read_text() == text
    assert not planned_policy(Path("/opt/ingle"), ["10.20.0.0/16"]).write(pytest.fail), "they are there already"

"""Nobody takes all."""

from ingle.api_server.host.shares import Shares


def taken(shares: Shares, asker: str, tries: int = 1000) -> int:
    return sum(shares.take(asker) for _ in range(tries))


def test_one_asker_has_no_more_than_its_part() -> None:
    shares = Shares(total=100, each=30)
    assert taken(shares, "greedy") == 30
    assert shares.take("modest")


def test_with_many_askers_the_parts_are_smaller_and_there_is_one_for_each() -> None:
    shares = Shares(total=100, each=30)
    got = [taken(shares, f"asker {number}") for number in range(90)]
    assert (max(got), min(got)) == (30, 1)
    assert sum(got) <= 100 + 90
    assert shares.take("one more")


def test_what_is_given_back_can_be_taken_again() -> None:
    shares = Shares(total=2, each=2)
    assert taken(shares, "one") == 2
    for _ in range(2):
        shares.give("one")
    assert taken(shares, "other") == 2

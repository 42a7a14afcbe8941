"""The token bucket against a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.service.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_minutes_requests_are_let_in_at_once_and_the_next_waits_for_its_share() -> None:
    clock = Clock()
    limit = RateLimit(30, now=clock)
    assert [limit.seconds_to_wait("a") for _ in range(30)] == [0.0] * 30
    assert limit.seconds_to_wait("a") == pytest.approx(2.0)
    clock.seconds = 1.5
    assert limit.seconds_to_wait("a") == pytest.approx(0.5)
    clock.seconds = 2.01
    assert limit.seconds_to_wait("a") == 0.0
    assert limit.seconds_to_wait("a") > 0.0


def test_addresses_do_not_share_a_bucket() -> None:
    limit = RateLimit(1, now=Clock())
    assert (limit.seconds_to_wait("a"), limit.seconds_to_wait("b")) == (0.0, 0.0)
    assert limit.seconds_to_wait("a") > 0.0


def test_a_quiet_hour_saves_up_one_minute_and_no_more() -> None:
    clock = Clock()
    limit = RateLimit(3, now=clock)
    limit.seconds_to_wait("a")
    clock.seconds = 3600.0
    assert [limit.seconds_to_wait("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_many_addresses_are_not_remembered_for_ever() -> None:
    limit = RateLimit(1, now=Clock())
    limit.seconds_to_wait("first")
    for number in range(10_000):
        limit.seconds_to_wait(str(number))
    assert limit.seconds_to_wait("first") == 0.0
    assert limit.seconds_to_wait("9999") > 0.0


@given(
    per_minute=st.integers(1, 100),
    pauses=st.lists(st.floats(0.0, 30.0), min_size=1, max_size=300),
)
def test_never_more_are_let_in_than_the_bucket_held_and_time_filled(per_minute, pauses) -> None:
    clock = Clock()
    limit = RateLimit(per_minute, now=clock)
    n_let_in = 0
    for pause in pauses:
        clock.seconds += pause
        n_let_in += limit.seconds_to_wait("a") == 0.0
    assert n_let_in <= per_minute + clock.seconds * per_minute / 60 + 1e-6

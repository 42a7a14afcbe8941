from __future__ import annotations

import pytest

from btc_lifecycle.sandbox.weights import BAN_AFTER_REFUSALS, BAN_SECONDS, WeightMeter


class Wall:
    """A wall clock moved by hand."""

    def __init__(self):
        self.seconds = 6000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def wall():
    return Wall()


@pytest.fixture
def meter(wall):
    return WeightMeter(limit_per_min=10, wall=wall)


def test_weight_adds_up_to_the_limit_and_no_further(meter, wall):
    assert [meter.admit(4).status for _ in range(3)] == [200, 200, 429]
    assert meter.used_weight == 12


def test_a_refused_client_may_come_back_in_the_next_minute(meter, wall):
    wall.seconds += 12.5
    meter.admit(10)
    refused = meter.admit(1)
    assert refused.status == 429
    wall.seconds += refused.retry_after_seconds
    assert meter.used_weight == 0
    assert meter.admit(1).status == 200


def test_hammering_on_after_429_gets_a_ban_that_outlasts_the_minute(meter, wall):
    meter.admit(10)
    statuses = [meter.admit(1).status for _ in range(BAN_AFTER_REFUSALS + 1)]
    assert statuses == [429] * BAN_AFTER_REFUSALS + [418]
    wall.seconds += 60
    banned = meter.admit(1)
    assert banned.status == 418
    assert banned.retry_after_seconds == BAN_SECONDS - 60 + 1
    assert banned.banned_until_ms == 1000 * (6000 + BAN_SECONDS)
    wall.seconds += banned.retry_after_seconds
    assert meter.admit(1).status == 200

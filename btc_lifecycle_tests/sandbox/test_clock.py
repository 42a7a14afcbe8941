from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.clock import SandboxClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Ticks:
    """A monotonic clock moved by hand."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


def test_sixty_fold_speed_makes_a_minute_pass_in_a_second():
    ticks = Ticks()
    clock = SandboxClock(NOON, 60, monotonic=ticks)
    ticks.seconds += 2.5
    assert clock.now() == NOON + timedelta(seconds=150)


@given(speed=st.floats(0, 1000), elapsed=st.floats(0, 1e6), more=st.floats(0, 1e6))
def test_time_never_runs_backwards_by_itself(speed, elapsed, more):
    ticks = Ticks()
    clock = SandboxClock(NOON, speed, monotonic=ticks)
    ticks.seconds += elapsed
    before = clock.now_ms()
    ticks.seconds += more
    assert clock.now_ms() >= before


def test_a_change_of_speed_keeps_the_time_reached():
    ticks = Ticks()
    clock = SandboxClock(NOON, 10, monotonic=ticks)
    ticks.seconds += 6
    clock.set(speed=0)
    ticks.seconds += 1000
    assert clock.now() == NOON + timedelta(minutes=1)


def test_a_jump_keeps_the_speed():
    ticks = Ticks()
    clock = SandboxClock(NOON, 2, monotonic=ticks)
    clock.set(now=NOON - timedelta(days=1))
    ticks.seconds += 1
    assert clock.now() == NOON - timedelta(days=1) + timedelta(seconds=2)


@pytest.mark.parametrize("speed", [-1.0, float("nan"), float("inf"), 1e6])
def test_impossible_speeds_are_refused(speed):
    with pytest.raises(ConfigurationError, match="cannot run at speed"):
        SandboxClock(NOON, speed)
    clock = SandboxClock(NOON, 0)
    with pytest.raises(ConfigurationError, match="cannot run at speed"):
        clock.set(now=NOON + timedelta(days=1), speed=speed)
    assert clock.now() == NOON


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ConfigurationError, match="has no zone"):
        SandboxClock(datetime(2026, 1, 1), 1)  # noqa: DTZ001

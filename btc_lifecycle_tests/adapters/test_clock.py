from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from btc_lifecycle.adapters import clock


def test_the_present_is_that_of_this_machine():
    before, now, after = datetime.now(UTC), clock.now(), datetime.now(UTC)
    assert before <= now <= after


def test_it_is_utc_in_every_zone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert clock.now().utcoffset() == timedelta(0)
        assert abs(clock.now().timestamp() - time.time()) < 60
    finally:
        monkeypatch.undo()
        time.tzset()

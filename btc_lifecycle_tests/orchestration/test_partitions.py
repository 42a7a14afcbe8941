"""The months that a backfill can be asked for."""

from __future__ import annotations

from datetime import UTC, datetime

from btc_lifecycle.orchestration.partitions import MONTHS


def test_months_reach_from_the_first_trade_on_binance_to_the_present_one() -> None:
    now = datetime(2024, 3, 15, tzinfo=UTC)
    months = MONTHS.get_partition_keys(current_time=now)
    assert months[0] == "2017-08-01"
    assert months[-1] == "2024-03-01"


def test_a_month_is_one_of_utc_and_half_open() -> None:
    window = MONTHS.time_window_for_partition_key("2024-02-01")
    assert window.start == datetime(2024, 2, 1, tzinfo=UTC)
    assert window.end == datetime(2024, 3, 1, tzinfo=UTC)

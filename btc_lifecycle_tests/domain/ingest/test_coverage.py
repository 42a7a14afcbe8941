from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.domain.ingest.coverage import cover
from btc_lifecycle.domain.tables import UTC_TIME

REAL = Path(__file__).parents[4] / "shared" / "data" / "binance_spot_1m" / "BTCUSDT"
OPEN_TIME = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE_MS = 60_000


class TestMissingMinutes:
    @pytest.mark.parametrize(
        ("minutes", "n_missing"),
        [
            ([0], 0),
            ([0, 1, 2], 0),
            ([0, 1, 5], 3),
            ([5, 0, 1], 3),
            ([0, 0.34665], 0),
            ([0.34665, 1.34665, 2.34665], 0),
            ([0.34665, 14], 13),
            ([0, 1.34665], 0),
        ],
    )
    def test_an_off_grid_candle_stands_for_the_minute_that_it_opened_in(
        self, minutes: list[float], n_missing: int
    ):
        assert n_missing_min(times_at(minutes)) == n_missing

    @given(minutes=st.sets(st.integers(0, 2000), min_size=1, max_size=60))
    def test_on_the_grid_it_is_the_number_of_minutes_of_the_span_that_are_not_there(self, minutes):
        absent = [i for i in range(min(minutes), max(minutes)) if i not in minutes]
        assert n_missing_min(times_at(sorted(minutes))) == len(absent)

    @given(
        minutes=st.sets(st.integers(0, 2000), min_size=1, max_size=60), offset=st.floats(0, 0.999)
    )
    def test_one_offset_for_all_changes_nothing(self, minutes, offset):
        on_grid = times_at(sorted(minutes))
        shifted = times_at([minute + offset for minute in sorted(minutes)])
        assert n_missing_min(shifted) == n_missing_min(on_grid)

    @pytest.mark.real_data
    @pytest.mark.parametrize(
        ("month", "n_missing"),
        # 2017-12 goes off the grid and back, over outages of 13 and 64 minutes.
        [("2017-12", 77), ("2021-04", 434), ("2021-08", 270), ("2023-03", 80)],
    )
    def test_the_outages_of_the_real_series_are_counted(self, month: str, n_missing: int):
        open_times = real_month(month)["open_time"].cast(UTC_TIME)
        assert n_missing_min(open_times) == n_missing


def times_at(minutes: list[float]) -> pl.Series:
    times = [OPEN_TIME + timedelta(milliseconds=round(minute * MINUTE_MS)) for minute in minutes]
    return pl.Series("open_time", times, dtype=UTC_TIME)


def n_missing_min(open_times: pl.Series) -> int:
    return cover(open_times.to_frame().with_columns(volume=pl.lit(1.0))).n_missing_min


def real_month(month: str) -> pl.DataFrame:
    path = REAL / f"{month}.parquet"
    if not path.exists():
        pytest.skip(f"no real candles at {path}")
    return pl.read_parquet(path)

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.ingest.coverage import MAX_GAPS
from btc_lifecycle.domain.ingest.summary import (
    MAX_MOVES,
    one_minute_log_returns,
    summarize,
)
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle_tests.reference_summary import (
    slow_gaps,
    slow_missing_minutes,
    slow_moments,
    slow_quantile,
    slow_returns_bps,
    slow_season,
)

START = datetime(2024, 2, 28, 23, 58, tzinfo=UTC)
REAL = Path(__file__).parents[4] / "shared" / "data" / "binance_spot_1m" / "BTCUSDT"


def candles_at(minutes: list[float], *, close: list[float], volume: list[float]) -> pl.DataFrame:
    """Return flat candles so many minutes after START."""
    return pl.DataFrame(
        {
            "symbol": ["BTC/USDT"] * len(minutes),
            "open_time": [START + timedelta(minutes=minute) for minute in minutes],
            **dict.fromkeys(("open", "high", "low", "close"), close),
            "volume": volume,
            **dict.fromkeys(
                ("quote_volume", "trades", "taker_buy_base", "taker_buy_quote"),
                [None] * len(minutes),
            ),
        },
        schema=CANDLES.schema,
    )


def random_candles(minutes: list[int], *, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, len(minutes))))
    # A few equal closes and empty minutes, as the real series have.
    volume = rng.integers(0, 4, len(minutes)) / 2
    return candles_at(list(minutes), close=close.round(1).tolist(), volume=volume.tolist())


@st.composite
def some_candles(draw: st.DrawFn) -> pl.DataFrame:
    minutes = draw(st.lists(st.integers(0, 4000), min_size=1, max_size=60, unique=True))
    near = draw(st.integers(0, 40))
    together = sorted({*minutes, *range(near)})
    return random_candles(together, seed=draw(st.integers(0, 2**32 - 1)))


def test_five_candles_with_a_gap_give_the_figures_worked_out_by_hand():
    candles = candles_at(
        [0, 1, 2, 5, 6], close=[100.0, 110.0, 110.0, 99.0, 108.9], volume=[2.0, 0.0, 1.0, 4.0, 3.0]
    )
    summary = summarize(candles)
    coverage, returns = summary.coverage, summary.returns
    up_bps = 1e4 * math.log(1.1)
    assert (coverage.n_rows, coverage.n_expected_min, coverage.n_missing_min) == (5, 7, 2)
    assert [(gap.start, gap.n_minutes) for gap in coverage.gaps] == [
        (datetime(2024, 2, 29, 0, 1, tzinfo=UTC), 2)
    ]
    assert [(day.day, day.n_expected_min, day.n_missing_min) for day in coverage.days] == [
        (date(2024, 2, 28), 2, 0),
        (date(2024, 2, 29), 5, 2),
    ]
    assert coverage.present_ratio == pytest.approx(5 / 7)
    assert (coverage.n_off_grid, coverage.n_zero_volume) == (0, 1)
    assert summary.price.change_ratio == pytest.approx(0.089)
    assert (summary.price.low, summary.price.low_at) == (99.0, START + timedelta(minutes=5))
    assert (summary.price.high, summary.price.high_at) == (110.0, START + timedelta(minutes=1))
    assert (summary.volume.total, summary.volume.mean, summary.volume.median) == (10.0, 2.0, 2.0)
    assert (summary.volume.max, summary.volume.max_at) == (4.0, START + timedelta(minutes=5))
    # Returns: up, 0, (none over the gap), up.
    assert returns.n_returns == 3
    assert returns.mean_bps == pytest.approx(2 / 3 * up_bps)
    assert returns.std_bps == pytest.approx(up_bps / math.sqrt(3))
    assert returns.annualized_volatility_ratio == pytest.approx(
        math.log(1.1) / math.sqrt(3) * math.sqrt(525_600)
    )
    assert [move.open_time for move in returns.largest_up] == [
        START + timedelta(minutes=1),
        START + timedelta(minutes=6),
    ]
    assert returns.largest_down == ()
    midnight, last_hour = summary.hours[0], summary.hours[23]
    assert (midnight.n_candles, midnight.mean_volume) == (3, pytest.approx(8 / 3))
    assert midnight.median_abs_return_bps == pytest.approx(up_bps / 2)
    assert (last_hour.n_candles, last_hour.median_abs_return_bps) == (2, pytest.approx(up_bps))
    assert [season.n_candles for season in summary.weekdays] == [0, 0, 2, 3, 0, 0, 0]


@given(candles=some_candles())
def test_every_figure_equals_the_slow_reference(candles: pl.DataFrame):
    rows = candles.to_dicts()
    summary = summarize(candles)
    coverage, returns = summary.coverage, summary.returns
    assert coverage.n_missing_min == len(slow_missing_minutes(rows))
    gaps = slow_gaps(rows)
    assert coverage.n_gaps == len(gaps)
    assert [(gap.start, gap.n_minutes) for gap in coverage.gaps] == gaps[:MAX_GAPS]
    assert coverage.n_zero_volume == sum(row["volume"] == 0 for row in rows)
    moves = slow_returns_bps(rows)
    values = [bps for _, bps in moves]
    assert returns.n_returns == len(values)
    if len(set(values)) > 2:
        expected = slow_moments(values)
        actual = (returns.mean_bps, returns.std_bps, returns.skew, returns.excess_kurtosis)
        assert actual == pytest.approx(expected, abs=1e-6)
    for probability, value in returns.quantiles_bps:
        assert value == pytest.approx(slow_quantile(values, probability=probability), abs=1e-9)
    ups = sorted((-bps, time) for time, bps in moves if bps > 0)[:MAX_MOVES]
    assert [-move.log_return_bps for move in returns.largest_up] == pytest.approx(
        [bps for bps, _ in ups]
    )
    downs = sorted(bps for _, bps in moves if bps < 0)[:MAX_MOVES]
    assert [move.log_return_bps for move in returns.largest_down] == pytest.approx(downs)
    seasons = ((summary.hours, lambda time: time.hour), (summary.weekdays, datetime.isoweekday))
    for season, key in ((season, key) for group, key in seasons for season in group):
        expected = slow_season(rows, key=key, wanted=season.key)
        assert (season.n_candles, season.median_abs_return_bps, season.mean_volume) == (
            pytest.approx(expected)
        )


@given(candles=some_candles())
def test_gaps_days_and_rows_account_for_every_minute_of_the_span(candles: pl.DataFrame):
    coverage = summarize(candles).coverage
    assert coverage.n_rows + coverage.n_missing_min == coverage.n_expected_min
    assert sum(day.n_missing_min for day in coverage.days) == coverage.n_missing_min
    assert sum(day.n_expected_min for day in coverage.days) == coverage.n_expected_min
    if coverage.n_gaps <= MAX_GAPS:
        assert sum(gap.n_minutes for gap in coverage.gaps) == coverage.n_missing_min


@given(candles=some_candles(), factor=st.floats(0.01, 1e4))
def test_returns_do_not_depend_on_the_currency_of_the_price(candles: pl.DataFrame, factor: float):
    scaled = candles.with_columns(pl.col("open", "high", "low", "close") * factor)
    before, after = one_minute_log_returns(candles), one_minute_log_returns(scaled)
    assert after.to_list() == pytest.approx(before.to_list(), abs=1e-9)


def test_candles_are_left_as_they_were():
    candles = random_candles([0, 1, 2, 9], seed=1)
    before = candles.clone()
    summarize(candles)
    assert candles.equals(before)


def test_off_grid_candles_stand_for_the_minute_that_they_opened_in():
    off = 20.799 / 60
    candles = candles_at([off, 1 + off, 2, 4], close=[1.0, 2.0, 3.0, 4.0], volume=[1.0] * 4)
    summary = summarize(candles)
    assert summary.coverage.n_off_grid == 2
    assert summary.coverage.n_missing_min == 1
    # From 1 min 20.799 s to 2 min is no full minute.
    assert summary.returns.n_returns == 1


def test_two_candles_in_the_same_minute_hide_no_missing_minute():
    candles = candles_at([0, 0.5, 2], close=[1.0, 2.0, 3.0], volume=[1.0] * 3)
    coverage = summarize(candles).coverage
    assert (coverage.n_rows, coverage.n_expected_min, coverage.n_missing_min) == (3, 3, 1)


def test_among_equal_extremes_the_first_is_named():
    summary = summarize(candles_at([0, 1, 2], close=[5.0] * 3, volume=[0.0] * 3))
    assert {summary.price.low_at, summary.price.high_at, summary.volume.max_at} == {START}


def test_equal_prices_have_no_skewness_and_no_moves():
    returns = summarize(candles_at([0, 1, 2], close=[5.0] * 3, volume=[0.0] * 3)).returns
    assert (returns.std_bps, returns.annualized_volatility_ratio) == (0.0, 0.0)
    assert (returns.skew, returns.excess_kurtosis) == (None, None)
    assert (returns.largest_up, returns.largest_down) == ((), ())


def test_a_single_candle_has_no_returns():
    summary = summarize(candles_at([0], close=[5.0], volume=[1.0]))
    assert (summary.returns.n_returns, summary.returns.mean_bps) == (0, None)
    assert summary.returns.quantiles_bps == ()
    assert summary.returns.annualized_volatility_ratio is None
    assert summary.coverage.present_ratio == 1


def test_only_the_longest_gaps_and_largest_moves_are_listed_but_all_are_counted():
    minutes = [3 * step + extra for step in range(30) for extra in (0, 1)]
    close = [100.0 + step for step in range(60)]
    summary = summarize(candles_at(minutes, close=close, volume=[1.0] * 60))
    assert (summary.coverage.n_gaps, len(summary.coverage.gaps)) == (29, MAX_GAPS)
    assert (summary.returns.n_returns, len(summary.returns.largest_up)) == (30, MAX_MOVES)


def test_totals_of_optional_columns_need_every_minute():
    candles = random_candles([0, 1], seed=2)
    given_all = candles.with_columns(quote_volume=pl.lit(2.5), trades=pl.lit(3, pl.Int64))
    given_one = candles.with_columns(quote_volume=pl.Series([2.5, None]))
    volume = summarize(given_all).volume
    assert (volume.quote_total, volume.trades_total) == (5.0, 6)
    assert summarize(given_one).volume.quote_total is None


def test_no_candle_is_refused():
    with pytest.raises(DataError, match="no candles to summarize; ingest candles first"):
        summarize(pl.DataFrame(schema=CANDLES.schema))


def test_two_symbols_are_refused():
    candles = random_candles([0, 1], seed=3)
    both = candles.with_columns(symbol=pl.Series(["ETH/USDT", "BTC/USDT"]))
    with pytest.raises(DataError, match=r"2 symbols.*BTC/USDT, ETH/USDT.*one symbol at a time"):
        summarize(both)


@pytest.mark.parametrize("minutes", [[1, 0], [0, 0]])
def test_open_times_out_of_order_or_twice_are_refused(minutes: list[float]):
    candles = candles_at(minutes, close=[1.0, 2.0], volume=[1.0, 1.0])
    with pytest.raises(DataError, match="not strictly increasing; sort by open_time"):
        summarize(candles)


@pytest.mark.parametrize("price", [0.0, -1.0, math.inf, math.nan])
def test_a_price_that_is_no_positive_number_is_refused_with_its_minute(price: float):
    candles = candles_at([0, 1], close=[1.0, price], volume=[1.0, 1.0])
    with pytest.raises(DataError, match=r"1 candles have a price.*first at 2024-02-28 23:59 UTC"):
        summarize(candles)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("month", "n_rows", "n_missing_min", "longest", "n_off_grid", "n_zero_volume"),
    [
        ("2017-12", 44_564, 77, (datetime(2017, 12, 18, 12, 30, tzinfo=UTC), 64), 20_401, 100),
        ("2021-08", 44_370, 270, (datetime(2021, 8, 13, 2, 0, tzinfo=UTC), 270), 0, 0),
        ("2023-03", 44_560, 80, (datetime(2023, 3, 24, 12, 40, tzinfo=UTC), 80), 0, 72),
    ],
)
def test_the_known_oddities_of_the_real_series_are_counted(
    month: str,
    n_rows: int,
    n_missing_min: int,
    longest: tuple[datetime, int],
    n_off_grid: int,
    n_zero_volume: int,
):
    path = REAL / f"{month}.parquet"
    if not path.exists():
        pytest.skip(f"no real candles at {REAL}")
    month_candles = pl.read_parquet(path).with_columns(symbol=pl.lit("BTC/USDT"))
    columns = [pl.col(name).cast(dtype) for name, dtype in CANDLES.schema.items()]
    coverage = summarize(month_candles.select(columns)).coverage
    assert (coverage.n_rows, coverage.n_missing_min) == (n_rows, n_missing_min)
    assert (coverage.gaps[0].start, coverage.gaps[0].n_minutes) == longest
    assert (coverage.n_off_grid, coverage.n_zero_volume) == (n_off_grid, n_zero_volume)

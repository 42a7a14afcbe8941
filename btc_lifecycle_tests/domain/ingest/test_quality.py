from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest

from btc_lifecycle.domain.ingest.quality import (
    STALE_AFTER,
    find_repeated,
    find_spikes,
    find_stale,
    find_unsound,
)
from btc_lifecycle.domain.tables import UTC_TIME
from btc_lifecycle_tests.builders import START, make_candles

MINUTE = timedelta(minutes=1)


def with_value(candles: pl.DataFrame, row: int, **values: object) -> pl.DataFrame:
    """Return candles with some values of one row replaced."""
    is_row = pl.int_range(pl.len()) == row
    return candles.with_columns(
        pl.when(is_row).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    )


def two_symbols() -> pl.DataFrame:
    ether = make_candles(20, seed=1, symbol="ETH/USDT").with_columns(
        pl.col("open", "high", "low", "close") / 20
    )
    return pl.concat([make_candles(20), ether])


@pytest.mark.parametrize("with_taker", [True, False])
def test_sound_candles_give_nothing_to_say(with_taker: bool):
    candles = make_candles(50, with_taker=with_taker)
    for find in (find_unsound, find_repeated, find_spikes):
        finding = find(candles)
        assert finding.is_passed
        assert finding.rows.is_empty()
        assert finding.said.startswith("0 of 50 candles ")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"low": -1.0}, "a price is not positive"),
        ({"high": 1.0}, "the high is not the highest price"),
        ({"low": 1e9}, "the high is not the highest price"),
        ({"close": float("nan")}, "a price is not a number"),
        ({"volume": -1.0}, "the volume is negative"),
        ({"volume": float("inf")}, "the volume is not a number"),
        ({"trades": -1}, "an amount is negative"),
        ({"quote_volume": None}, "an amount is not a number"),
        ({"taker_buy_base": 1e9}, "takers bought more than was traded"),
    ],
)
def test_a_candle_that_breaks_a_rule_is_found_with_the_rule(values: dict[str, object], reason: str):
    finding = find_unsound(with_value(make_candles(50), 7, **values))
    assert not finding.is_passed
    assert finding.said.startswith("1 of 50 candles break a rule")
    assert finding.rows["reason"].to_list() == [reason]
    assert finding.rows["open_time"].to_list() == [START + 7 * MINUTE]


def test_candles_that_are_there_twice_are_found():
    candles = make_candles(50)
    finding = find_repeated(pl.concat([candles, candles[3:5]]))
    assert not finding.is_passed
    assert finding.said == "4 of 52 candles share their symbol and open time"


def test_the_same_minute_of_two_symbols_is_no_repetition():
    assert find_repeated(two_symbols()).is_passed


@pytest.mark.parametrize(("ratio", "is_spike"), [(1.11, True), (0.89, True), (1.09, False)])
def test_a_leap_of_the_close_is_found(ratio: float, is_spike: bool):
    flat = make_candles(10).with_columns(close=pl.lit(100.0))
    finding = find_spikes(with_value(flat, 9, close=100.0 * ratio))
    assert finding.is_passed is not is_spike
    assert finding.rows["open_time"].to_list() == [START + 9 * MINUTE] * is_spike


def test_a_leap_across_a_gap_or_from_one_symbol_to_the_next_is_none():
    leap = make_candles(10).with_columns(close=pl.lit(100.0))
    gappy = with_value(leap, 9, close=200.0).filter(pl.int_range(pl.len()) != 8)
    assert find_spikes(gappy).is_passed
    assert find_spikes(two_symbols()).is_passed


def test_no_candles_have_no_leap():
    assert find_spikes(make_candles(0)).is_passed


@pytest.mark.parametrize(("seconds_late", "is_stale"), [(0, False), (1, True)])
def test_a_newest_candle_may_lie_a_few_minutes_behind(seconds_late: int, is_stale: bool):
    fetched_at = START + MINUTE + STALE_AFTER + timedelta(seconds=seconds_late)
    rows: list[tuple[str, datetime, datetime]] = [
        ("BTC/USDT", START, fetched_at),
        ("ETH/USDT", fetched_at - MINUTE, fetched_at),
    ]
    schema = {"symbol": pl.String, "last_open_time": UTC_TIME, "fetched_at": UTC_TIME}
    finding = find_stale(pl.DataFrame(rows, schema=schema, orient="row"))
    assert finding.is_passed is not is_stale
    assert finding.rows["symbol"].to_list() == ["BTC/USDT"] * is_stale
    assert finding.said == f"{int(is_stale)} of 2 symbols lie more than 0:05:00 behind"

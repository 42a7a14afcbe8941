from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from btc_lifecycle.domain.errors import ConfigurationError, DataError
from btc_lifecycle.sandbox.market import as_ms
from btc_lifecycle.sandbox.protocol import answer
from btc_lifecycle.sandbox.replay import ReplayMarket
from btc_lifecycle_tests.reference_sandbox import all_rows

DATA = Path(__file__).parents[3] / "shared" / "data" / "binance_spot_1m"
JANUARY = datetime(2024, 1, 1, tzinfo=UTC)
FOREVER_MS = as_ms(datetime(2030, 1, 1, tzinfo=UTC))


def candles(*, first=JANUARY, minutes=(0, 1, 2)):
    return pl.DataFrame(
        {
            "open_time": [first + timedelta(minutes=minute) for minute in minutes],
            "open": [42_000.1 + minute for minute in minutes],
            "high": [42_001.0 + minute for minute in minutes],
            "low": [41_999.99 + minute for minute in minutes],
            "close": [42_000.5 + minute for minute in minutes],
            "volume": [0.12345678 + minute for minute in minutes],
        },
        schema_overrides={"open_time": pl.Datetime("us", "UTC")},
    )


def written(folder, frame, *, symbol="BTCUSDT", month="2024-01"):
    (folder / symbol).mkdir(exist_ok=True)
    frame.write_parquet(folder / symbol / f"{month}.parquet")
    return folder


def rows_of(market, symbol="BTCUSDT"):
    return all_rows(market, symbol, until_ms=FOREVER_MS)


def test_recorded_values_come_back_and_absent_columns_are_zero(tmp_path):
    market = ReplayMarket(written(tmp_path, candles(minutes=(0,))))
    start = as_ms(JANUARY)
    assert rows_of(market) == [
        [
            start,
            "42000.10000000",
            "42001.00000000",
            "41999.99000000",
            "42000.50000000",
            "0.12345678",
            start + 59_999,
            "0.00000000",
            0,
            "0.00000000",
            "0.00000000",
            "0",
        ]
    ]


def test_nulls_in_optional_columns_are_zero_and_values_are_kept(tmp_path):
    frame = candles(minutes=(0, 1)).with_columns(
        quote_volume=pl.Series([1.5, None], dtype=pl.Float64),
        trades=pl.Series([None, 7], dtype=pl.Int64),
        taker_buy_base=pl.Series([None, 0.25], dtype=pl.Float64),
        taker_buy_quote=pl.Series([None, None], dtype=pl.Float64),
    )
    rows = rows_of(ReplayMarket(written(tmp_path, frame)))
    assert [row[7:11] for row in rows] == [
        ["1.50000000", 0, "0.00000000", "0.00000000"],
        ["0.00000000", 7, "0.25000000", "0.00000000"],
    ]


def test_missing_minutes_stay_missing_and_odd_open_times_stay_odd(tmp_path):
    frame = candles(first=JANUARY + timedelta(seconds=20, milliseconds=799), minutes=(0, 5, 3))
    rows = rows_of(ReplayMarket(written(tmp_path, frame)))
    start = as_ms(JANUARY) + 20_799
    assert [row[0] - start for row in rows] == [0, 3 * 60_000, 5 * 60_000]
    assert [row[6] - row[0] for row in rows] == [59_999] * 3


def test_months_follow_each_other_and_pages_reach_over_the_months_between(tmp_path):
    march = datetime(2024, 3, 1, tzinfo=UTC)
    written(tmp_path, candles())
    market = ReplayMarket(written(tmp_path, candles(first=march), month="2024-03"))
    body = answer(
        "/api/v3/klines",
        [("symbol", "BTCUSDT"), ("interval", "1m"), ("startTime", str(as_ms(JANUARY) + 60_000))],
        market=market,
        now_ms=FOREVER_MS,
        weight_limit_per_min=6000,
    )
    at = [as_ms(JANUARY) + 60_000, as_ms(JANUARY) + 120_000]
    at += [as_ms(march), as_ms(march) + 60_000, as_ms(march) + 120_000]
    assert [row[0] for row in json.loads(body)] == at


def test_a_symbols_own_folder_is_a_market_of_one_symbol(tmp_path):
    written(tmp_path, candles())
    written(tmp_path, candles(), symbol="ETHUSDT")
    assert ReplayMarket(tmp_path).symbols == ("BTCUSDT", "ETHUSDT")
    assert ReplayMarket(tmp_path / "ETHUSDT").symbols == ("ETHUSDT",)


def test_the_description_names_the_months(tmp_path):
    described = ReplayMarket(written(tmp_path, candles())).describe()
    assert described["months"] == {"BTCUSDT": ["2024-01"]}
    assert described["seed"] is None


def test_a_folder_without_months_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no recorded candles to replay"):
        ReplayMarket(tmp_path)
    with pytest.raises(ConfigurationError, match="no recorded candles to replay"):
        ReplayMarket(written(tmp_path, candles(), month="15m"))
    with pytest.raises(ConfigurationError, match="no recorded candles to replay"):
        ReplayMarket(tmp_path / "nowhere")


def test_a_file_without_a_column_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"column\(s\) high, volume are missing"):
        ReplayMarket(written(tmp_path, candles().drop("high", "volume")))


def test_open_times_without_a_zone_are_refused(tmp_path):
    naive = candles().with_columns(pl.col("open_time").dt.replace_time_zone(None))
    with pytest.raises(ConfigurationError, match="open_time is Datetime"):
        ReplayMarket(written(tmp_path, naive))


@pytest.mark.parametrize(
    "frame",
    [
        candles(minutes=(0, 1, 1)),
        candles(first=datetime(2024, 2, 1, tzinfo=UTC)),
        candles().with_columns(close=pl.lit(None, dtype=pl.Float64)),
    ],
    ids=["repeated", "other month", "null price"],
)
def test_a_broken_month_is_refused_when_read(tmp_path, frame):
    market = ReplayMarket(written(tmp_path, frame))
    with pytest.raises(DataError, match="candles lack a value, repeat an open time or lie outside"):
        rows_of(market)


@pytest.mark.real_data
@pytest.mark.parametrize("month", ["2017-12", "2021-04", "2025-06"])
def test_real_months_come_back_to_the_last_digit(month):
    path = DATA / "BTCUSDT" / f"{month}.parquet"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    recorded = pl.read_parquet(path)
    market = ReplayMarket(DATA / "BTCUSDT")
    first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    block = market.block("BTCUSDT", start_ms=as_ms(first))
    rows = json.loads(b"[" + block.rows_text(0, len(block)) + b"]")
    assert [row[0] for row in rows] == recorded["open_time"].dt.epoch("ms").to_list()
    for field, name in enumerate(("open", "high", "low", "close", "volume"), start=1):
        assert [float(row[field]) for row in rows] == recorded[name].to_list()

from __future__ import annotations

import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.domain.ingest.candles import (
    closed_before,
    parse_klines,
    require_sound,
)
from btc_lifecycle.domain.tables import CANDLES, UTC_TIME
from btc_lifecycle_tests.builders import make_candles

SHARED = Path(__file__).parents[4] / "shared"
RECORDED = SHARED / "fixtures" / "binance_rest"
REAL = SHARED / "data" / "binance_spot_1m" / "BTCUSDT"

OPEN_MS = 1_704_067_200_000  # 2024-01-01 00:00 UTC
OPEN_TIME = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE_MS = 60_000
MINUTE = timedelta(minutes=1)
FIELDS = [
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "trades",
    "taker_buy_base",
    "taker_buy_quote",
    "unused",
]


def kline(minute: float = 0, **fields: object) -> list[object]:
    """Return a row as Binance gives it, so many minutes after OPEN_TIME, with fields replaced."""
    open_ms = OPEN_MS + round(minute * MINUTE_MS)
    row: dict[str, object] = {
        "open_time": open_ms,
        "open": "42283.58000000",
        "high": "42298.62000000",
        "low": "42261.02000000",
        "close": "42298.61000000",
        "volume": "35.92724000",
        "close_time": open_ms + MINUTE_MS - 1,
        "quote_volume": "1519032.42831870",
        "trades": 1327,
        "taker_buy_base": "23.18766000",
        "taker_buy_quote": "980394.01497270",
        "unused": "0",
    }
    return list({**row, **fields}.values())


def recorded(name: str) -> list[list[object]]:
    if not (RECORDED / name).exists():
        pytest.skip(f"no recorded answer {RECORDED / name}")
    return json.loads((RECORDED / name).read_bytes())


class TestParsing:
    def test_a_hand_made_page_becomes_candles_in_the_tables_types(self):
        candles = parse_klines([kline(0), kline(1, close="42290.5")], symbol="BTC/USDT")
        assert candles.schema == {**CANDLES.schema, "close_time": UTC_TIME}
        assert candles.row(0, named=True) == {
            "symbol": "BTC/USDT",
            "open_time": OPEN_TIME,
            "open": 42283.58,
            "high": 42298.62,
            "low": 42261.02,
            "close": 42298.61,
            "volume": 35.92724,
            "quote_volume": 1519032.4283187,
            "trades": 1327,
            "taker_buy_base": 23.18766,
            "taker_buy_quote": 980394.0149727,
            "close_time": OPEN_TIME + timedelta(seconds=59, milliseconds=999),
        }
        assert candles["close"].to_list() == [42298.61, 42290.5]

    def test_numbers_may_come_as_numbers_instead_of_text(self):
        as_numbers = kline(open=42283.58, volume=36, trades="1327", open_time=str(OPEN_MS))
        candles = parse_klines([as_numbers], symbol="BTC/USDT")
        assert candles.select("open", "volume", "trades").row(0) == (42283.58, 36.0, 1327)

    def test_a_page_without_rows_is_a_frame_without_rows(self):
        candles = parse_klines([], symbol="BTC/USDT")
        assert candles.is_empty()
        assert candles.schema == {**CANDLES.schema, "close_time": UTC_TIME}

    def test_of_repeated_open_times_the_last_row_is_kept(self):
        page = [kline(0, close="42270"), kline(1), kline(0, close="42280")]
        candles = parse_klines(page, symbol="BTC/USDT")
        assert candles["close"].to_list() == [42280.0, 42298.61]

    def test_an_unordered_page_is_put_in_order(self):
        candles = parse_klines([kline(2), kline(0), kline(1)], symbol="BTC/USDT")
        assert candles["open_time"].to_list() == [OPEN_TIME + i * MINUTE for i in range(3)]

    def test_open_times_off_the_minute_grid_are_kept(self):
        candles = parse_klines([kline(0.34665), kline(1.34665)], symbol="BTC/USDT")
        assert candles["open_time"][0] == OPEN_TIME + timedelta(milliseconds=20_799)

    def test_a_minute_without_a_trade_is_a_candle(self):
        quiet = dict.fromkeys(("open", "high", "low", "close"), "42283.58000000")
        nothing = dict.fromkeys(
            ("volume", "quote_volume", "taker_buy_base", "taker_buy_quote"), "0.00000000"
        )
        candles = parse_klines([kline(0, trades=0, **quiet, **nothing)], symbol="BTC/USDT")
        assert candles.select("volume", "trades", "taker_buy_base").row(0) == (0.0, 0, 0.0)

    def test_fields_that_the_source_does_not_carry_are_missing_and_not_zero(self):
        """Zeros where something was traded would say that every trade of the minute was a sale."""
        absent = {"quote_volume": "0", "trades": 0, "taker_buy_base": "0", "taker_buy_quote": "0"}
        candles = parse_klines([kline(0, **absent), kline(1)], symbol="BTC/USDT")
        carried = candles.select("quote_volume", "trades", "taker_buy_base", "taker_buy_quote")
        assert carried.row(0) == (None, None, None, None)
        assert None not in carried.row(1)

    @given(
        minutes=st.lists(st.integers(0, 500), min_size=1, max_size=30, unique=True),
        repeats=st.lists(st.integers(0, 29), max_size=30),
        seed=st.integers(0, 2**16),
    )
    def test_order_and_repeats_of_rows_do_not_change_the_candles(self, minutes, repeats, seed):
        page = [kline(minute, trades=minute + 1) for minute in minutes]
        disturbed = page + [page[i % len(page)] for i in repeats]
        random.Random(seed).shuffle(disturbed)  # noqa: S311
        assert_frame_equal(
            parse_klines(disturbed, symbol="BTC/USDT"), parse_klines(page, symbol="BTC/USDT")
        )

    @pytest.mark.real_data
    @pytest.mark.parametrize(
        "name",
        [
            "klines_BTCUSDT_15m_2024-12-30.json",
            "klines_BTCUSDT_1h_2023-03-01.json",
            "klines_BTCUSDT_1m_unclosed_last.json",
            "klines_BTCUSDT_2h_2017-11-01.json",
        ],
    )
    def test_recorded_answers_are_kept_to_the_last_digit(self, name: str):
        page = recorded(name)
        candles = parse_klines(page, symbol="BTC/USDT")
        assert candles.height == len(page)
        for row, candle in zip(page, candles.iter_rows(named=True), strict=True):
            given_ = dict(zip(FIELDS, row, strict=True))
            assert candle["open_time"].timestamp() * 1000 == given_["open_time"]
            assert candle["close_time"].timestamp() * 1000 == given_["close_time"]
            assert candle["trades"] == given_["trades"]
            for field in ("open", "high", "low", "close", "volume", "taker_buy_quote"):
                assert candle[field] == float(given_[field])


class TestRefusedPages:
    @pytest.mark.parametrize(
        ("page", "shown"),
        [
            ("<html><body>Maintenance</body></html>", "'<html><body>Maintenance"),
            ("", "''"),
            (b"[]", "b'[]'"),
            (None, "None"),
            ({}, "{}"),
            ({"code": -1003, "msg": "Too much request weight used"}, "{'code': -1003"),
            (7, "7"),
        ],
    )
    def test_what_is_no_list_is_refused_and_shown(self, page: object, shown: str):
        with pytest.raises(NeighbourUnavailableError) as refusal:
            parse_klines(page, symbol="ETH/USDT")
        assert "ETH/USDT: the exchange answered with " + shown in refusal.value.message
        assert "list of klines was expected" in refusal.value.message
        assert "nothing of it was stored" in refusal.value.hint

    def test_a_long_wrong_answer_is_shown_in_part(self):
        with pytest.raises(NeighbourUnavailableError) as refusal:
            parse_klines("x" * 10_000, symbol="BTC/USDT")
        assert len(refusal.value.message) < 160

    @pytest.mark.parametrize(
        "row", [kline()[:6], [*kline(), "0"], [], {}, "abcdefghijkl", 5, None, kline()[:11]]
    )
    def test_a_row_that_does_not_have_twelve_fields_is_refused_by_its_number(self, row: object):
        with pytest.raises(
            NeighbourUnavailableError, match=r"BTC/USDT: kline 1 of 3 is .* where 12 fields were"
        ):
            parse_klines([kline(0), row, kline(2)], symbol="BTC/USDT")

    @pytest.mark.parametrize("field", FIELDS[:-1])
    @pytest.mark.parametrize("value", ["abc", "", None, True, [1], "1,5"])
    def test_a_field_that_is_no_number_is_refused_by_name_row_and_value(
        self, field: str, value: object
    ):
        """A missing price or close time once went through: the candle was lost without a word."""
        page = [kline(0), kline(1, **{field: value})]
        with pytest.raises(NeighbourUnavailableError) as refusal:
            parse_klines(page, symbol="BTC/USDT")
        shown = None if value is None else str(value)
        assert refusal.value.message == (
            f"BTC/USDT: {field} of kline 1 of 2 is {shown!r} where a number was expected"
        )

    def test_the_field_that_nobody_uses_may_hold_anything(self):
        page = [kline(0, unused=None), kline(1, unused="x")]
        assert parse_klines(page, symbol="BTC/USDT").height == 2

    @pytest.mark.parametrize(
        "fields",
        [
            {"open": "NaN"},
            {"open": math.nan},
            {"high": "inf"},
            {"low": "-inf"},
            {"close": "0.00000000"},
            {"close": "-1"},
            {"high": "42283.57000000"},
            {"high": "42298.60000000"},
            {"high": "1"},
            {"low": "42283.59000000"},
            {"volume": "-0.1"},
            {"volume": "inf"},
            {"volume": "NaN"},
            {"quote_volume": "-1"},
            {"taker_buy_base": "NaN"},
            {"taker_buy_quote": "inf"},
            {"trades": -1},
        ],
        ids=str,
    )
    def test_a_candle_against_the_rules_is_refused_with_its_time_and_figures(
        self, fields: dict[str, object]
    ):
        ((name, value),) = fields.items()
        with pytest.raises(DataError) as refusal:
            parse_klines([kline(0), kline(1, **fields), kline(2)], symbol="BTC/USDT")
        assert "BTC/USDT: 1 of 3 candles break the rules" in refusal.value.message
        assert "first at 2024-01-01 00:01:00 UTC" in refusal.value.message
        shown = value if name == "trades" else float(str(value))
        assert f"{name} {shown}" in refusal.value.message

    @pytest.mark.parametrize(
        "times",
        [
            {"open_time": OPEN_MS * 1000, "close_time": OPEN_MS * 1000 + 59_999_999},
            {"open_time": OPEN_MS // 1000, "close_time": OPEN_MS // 1000 + 59},
            {"open_time": OPEN_MS // 1000},
            {"close_time": (OPEN_MS + 59_999) * 1000},
            {"open_time": 0},
            {"open_time": -1},
            {"open_time": 10**18},
            {"close_time": OPEN_MS},
            {"close_time": OPEN_MS - 1},
        ],
        ids=str,
    )
    def test_times_that_are_not_a_span_in_milliseconds_are_refused(self, times: dict[str, object]):
        """Microseconds once ended in an OverflowError; seconds became candles of 1970."""
        with pytest.raises(
            DataError, match=r"BTC/USDT: 1 of 2 klines .* milliseconds of 13 digits"
        ):
            parse_klines([kline(0, **times), kline(1)], symbol="BTC/USDT")


class TestSoundness:
    @pytest.mark.parametrize("with_taker", [True, False])
    def test_plausible_candles_are_sound_with_and_without_taker_data(self, with_taker: bool):
        require_sound(make_candles(100, with_taker=with_taker))

    @pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
    def test_a_missing_price_or_volume_is_not_sound(self, column: str):
        candles = make_candles(3)
        is_second = pl.int_range(pl.len()) == 1
        holed = candles.with_columns(pl.when(~is_second).then(pl.col(column)).alias(column))
        with pytest.raises(DataError, match=f"1 of 3 candles .* {column} None"):
            require_sound(holed)

    @pytest.mark.real_data
    @pytest.mark.parametrize("month", ["2017-12", "2021-04", "2021-08", "2023-03"])
    def test_the_real_series_is_sound_with_its_oddities(self, month: str):
        require_sound(real_month(month).with_columns(pl.lit("BTC/USDT").alias("symbol")))


class TestClosing:
    def test_a_candle_is_closed_once_the_exchange_is_past_its_last_millisecond(self):
        candles = parse_klines([kline(0), kline(1)], symbol="BTC/USDT")
        end = OPEN_TIME + 2 * MINUTE
        tick = timedelta(milliseconds=1)
        assert closed_before(candles, now=end).height == 2
        assert closed_before(candles, now=end - tick).height == 1
        assert closed_before(candles, now=OPEN_TIME + MINUTE - tick).height == 0

    def test_closed_candles_have_the_tables_columns(self):
        candles = parse_klines([kline(0)], symbol="BTC/USDT")
        assert closed_before(candles, now=OPEN_TIME + MINUTE).schema == CANDLES.schema

    @pytest.mark.real_data
    def test_the_minute_in_progress_of_a_recorded_answer_is_dropped(self):
        page = recorded("klines_BTCUSDT_1m_unclosed_last.json")
        candles = parse_klines(page, symbol="BTC/USDT")
        seconds_into_last = candles["open_time"][-1] + timedelta(seconds=20)
        closed = closed_before(candles, now=seconds_into_last)
        assert_frame_equal(closed, candles[:-1].drop("close_time"))


def real_month(month: str) -> pl.DataFrame:
    path = REAL / f"{month}.parquet"
    if not path.exists():
        pytest.skip(f"no real candles at {path}")
    return pl.read_parquet(path)
